//! An attachment: one interface of one sandbox, its names, and what is remembered of it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use api::Mac;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const PREFIX: &str = "ob";
const DIGITS: usize = 13;

/// The key of an attachment: containerID and ifname (CNI specification, section "ADD").
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct AttachmentId {
    /// CNI_CONTAINERID: the sandbox.
    pub(crate) container: String,
    /// CNI_IFNAME: the interface's name in the sandbox.
    pub(crate) ifname: String,
}

impl AttachmentId {
    /// Name of the link on the host, and of its OVS port: found again without any record.
    pub(crate) fn host_link(&self) -> String {
        format!("{PREFIX}{}", self.digest(DIGITS))
    }

    /// Name of its record in the journal.
    pub(crate) fn key(&self) -> String {
        self.digest(32)
    }

    fn digest(&self, digits: usize) -> String {
        let mut hash = Sha256::new();
        hash.update(&self.container);
        hash.update([0]);
        hash.update(&self.ifname);
        let mut text: String = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        text.truncate(digits);
        text
    }
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of sandbox {}", self.ifname, self.container)
    }
}

/// Whether a link of this name is one of ours (`ob0`, the node's own, is not such a link).
pub(crate) fn is_host_link(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| {
        rest.len() == DIGITS && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// The pod that an attachment belongs to, as CNI_ARGS names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What the journal keeps of an attachment that is whole; enough to remove it and to plug its port again.
///
/// An ADD or a DEL that was cut off needs no record: its link and its port are known as ours by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: AttachmentId,
    /// Name of the CNI network: GC is asked per network.
    pub(crate) network: String,
    pub(crate) pod: Pod,
    pub(crate) netns: PathBuf,
    pub(crate) port: PortRecord,
    /// Counts the attachments of this node's journal: of two with one iface-id the higher one holds the port.
    pub(crate) ordinal: u64,
}

/// What OVS is told of an attachment, and what the interface was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortRecord {
    /// Name of the logical switch port.
    pub(crate) iface_id: String,
    /// The interface's MAC address, in text.
    pub(crate) mac: String,
    /// Its addresses, IPv4 first; none in the record of an earlier version.
    #[serde(default)]
    pub(crate) ips: Vec<IpAddr>,
}

impl PortRecord {
    pub(crate) fn new(iface_id: impl Into<String>, mac: Mac, ips: &[IpNet]) -> Self {
        Self {
            iface_id: iface_id.into(),
            mac: mac.to_string(),
            ips: ips.iter().map(IpNet::addr).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(container: &str, ifname: &str) -> AttachmentId {
        AttachmentId {
            container: container.to_owned(),
            ifname: ifname.to_owned(),
        }
    }

    #[test]
    fn a_host_link_fits_the_kernel_and_is_known_as_ours() {
        let name = id("c1", "eth0").host_link();
        assert_eq!(name.len(), 15);
        assert!(is_host_link(&name));
        assert!(!is_host_link("ob0") && !is_host_link("ob0123456789abX") && !is_host_link("eth0"));
    }

    #[test]
    fn container_and_ifname_do_not_run_into_each_other() {
        assert_ne!(id("c", "1eth0").host_link(), id("c1", "eth0").host_link());
    }
}
