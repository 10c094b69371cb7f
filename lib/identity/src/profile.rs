//! Which kinds of certificates there are.

use api::{names, storage};

/// A kind of certificate that nodes have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// `signerName` of its CertificateSigningRequests.
    pub signer: &'static str,
    /// The only users who may post them; a user's token must be bound to a pod, and so to a node.
    pub users: &'static [&'static str],
    /// Organization in the subject.
    pub organization: &'static str,
    /// Good for a server too: usage `server auth`, and exactly one DNS name, the node's.
    pub server: bool,
    /// The directory has the files under the names that QEMU looks for, too.
    pub for_qemu: bool,
    /// Where a node keeps it, unless it is told otherwise.
    pub directory: &'static str,
    /// The program that signs, in sentences.
    pub controller: &'static str,
    /// Which certificates these are, in sentences. Its CA lies in the Secret `outboard-<kind>-ca`.
    pub kind: &'static str,
}

/// What makes a node an OVN chassis. A host whose network is on its DPU is none, and cannot have it.
pub const CHASSIS: Profile = Profile {
    signer: names::SIGNER,
    users: &[names::NODE_USER, names::NODE_DPU_USER],
    organization: names::CHASSIS_ORGANIZATION,
    server: false,
    for_qemu: false,
    directory: names::IDENTITY_DIR,
    controller: "cni-controller",
    kind: "chassis",
};

/// With which a host and its DPU speak: the host as a client, the DPU as a server, each by the name of its node.
pub const CHANNEL: Profile = Profile {
    signer: names::CHANNEL_SIGNER,
    users: &[names::NODE_HOST_USER, names::NODE_DPU_USER],
    organization: names::CHANNEL_ORGANIZATION,
    server: true,
    for_qemu: false,
    directory: names::CHANNEL_IDENTITY_DIR,
    controller: "cni-controller",
    kind: "channel",
};

/// With which a node reaches storage targets, and csi-controller reaches the node.
pub const STORAGE_NODE: Profile = Profile {
    signer: storage::SIGNER,
    users: &[storage::NODE_USER],
    organization: storage::NODE_ORGANIZATION,
    server: true,
    for_qemu: true,
    directory: names::STORAGE_IDENTITY_DIR,
    controller: "csi-controller",
    kind: "storage",
};

impl Profile {
    /// The usages of a request: these, all of them, and no other.
    #[must_use]
    pub fn usages(&self) -> &'static [&'static str] {
        if self.server {
            &["digital signature", "client auth", "server auth"]
        } else {
            &["digital signature", "client auth"]
        }
    }

    /// The common name of a node's certificate.
    #[must_use]
    pub fn common_name(&self, node: &str) -> String {
        names::chassis(node)
    }

    /// The DNS name in a node's certificate.
    #[must_use]
    pub fn dns_name<'a>(&self, node: &'a str) -> Option<&'a str> {
        self.server.then_some(node)
    }

    /// What a common name is called.
    #[cfg(feature = "sign")]
    pub(crate) fn noun(&self) -> &'static str {
        if self.server { "name" } else { "chassis" }
    }

    /// `name` as the log fields (`chassis`, `node`), of which one is there.
    #[cfg(any(feature = "ask", feature = "sign"))]
    pub(crate) fn fields<'a>(&self, name: &'a str) -> (Option<&'a str>, Option<&'a str>) {
        if self.server {
            (None, Some(name))
        } else {
            (Some(name), None)
        }
    }
}
