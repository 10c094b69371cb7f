//! How things are called in storage: driver, topology, what a publication says, identities.
//!
//! csi-controller, the two halves of csi-node, and whoever deploys them take these spellings from here.

use crate::names;

/// The CSI driver's name, as in CSIDriver, StorageClass and CSINode.
pub const DRIVER: &str = "csi.iaas.yusur.io";
/// Key of a node's topology; its value is the node's name.
pub const TOPOLOGY: &str = "storage.iaas.yusur.io/node";
/// Label (value `true`) of the node that has the images of the `local` backend, and so runs csi-controller.
pub const TARGET_LABEL: &str = "storage.iaas.yusur.io/target";

/// TCP port on which csi-node-dpu serves csi-controller (mTLS).
pub const NODE_PORT: u16 = 9483;
/// Where a card puts a file for each volume that it exposes as a local block device, unless it is told otherwise.
pub const EXPORTS_DIR: &str = "/run/outboard/exports";

/// The file in a volume's directory of its vhost-user-blk socket ([`vhost_directory`]).
pub const VHOST_SOCKET: &str = "disk.sock";
/// The volume of a virtual machine's pod in which its sockets are: KubeVirt gives it to every pod that has a hook sidecar.
pub const HOOK_VOLUME: &str = "hook-sidecar-sockets";
/// Below [`HOOK_VOLUME`]: a directory for each claim whose volume has a socket.
pub const HOOK_DIRECTORIES: [&str; 2] = ["outboard", "blk"];
/// What fits into a socket's address, bytes (unix(7): 108 with the closing zero).
const SOCKET_ADDRESS: usize = 107;

/// Name, in the card's directory of exports, of the directory of a volume's vhost-user-blk socket.
pub fn vhost_directory(uuid: impl std::fmt::Display) -> String {
    format!("{uuid}.vhost")
}

/// Where QEMU of a virtual machine's pod finds the socket of a claim's volume.
///
/// # Errors
/// A sentence: no claim has such a name, or the path does not fit into a socket's address.
pub fn vhost_path(claim: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if claim.is_empty() || !claim.bytes().all(plain) || claim.starts_with(['.', '-']) {
        return Err(format!("{claim:?} is not the name of a claim"));
    }
    let below = HOOK_DIRECTORIES.join("/");
    let path = format!("/var/run/kubevirt-hooks/{below}/{claim}/{VHOST_SOCKET}");
    if path.len() > SOCKET_ADDRESS {
        return Err(format!(
            "a virtual machine would find the socket of claim {claim} at {path}, which has {} bytes, and {SOCKET_ADDRESS} fit into \
             a socket's address: a volume with vhostUserBlk needs a claim whose name has at most {} characters",
            path.len(),
            SOCKET_ADDRESS - (path.len() - claim.len())
        ));
    }
    Ok(path)
}

/// Name space (UUID as a number) in which a volume whose handle is no UUID gets one: UUIDv5 of its whole id.
pub const VOLUME_UUIDS: u128 = 0x6f75_7462_6f61_7264_8000_766f_6c75_6d65;

/// `signerName` of the CertificateSigningRequests for the storage certificates of nodes.
pub const SIGNER: &str = "iaas.yusur.io/storage-node";
/// Organization in the subject of a node's storage certificate.
pub const NODE_ORGANIZATION: &str = "storage.iaas.yusur.io";
/// Service account of the container that asks for a node's storage certificate.
pub const NODE_SERVICE_ACCOUNT: &str = "csi-node";
/// User name under which the API server sees [`NODE_SERVICE_ACCOUNT`].
pub const NODE_USER: &str = "system:serviceaccount:outboard-system:csi-node";
/// Common name of csi-controller's certificate. No node's certificate can have it: `:` is in no node's name.
pub const CONTROLLER: &str = "system:csi-controller";
/// Organization in the subject of csi-controller's certificate.
pub const CONTROLLER_ORGANIZATION: &str = NODE_ORGANIZATION;
/// Organization in the subject of a storage target's certificate.
pub const TARGET_ORGANIZATION: &str = NODE_ORGANIZATION;

/// The common name in a node's storage certificate.
pub fn common_name(node: &str) -> String {
    names::chassis(node)
}

/// The subject of a node's storage certificate as GnuTLS, and so QEMU's NBD server, spells it: its parts in the
/// certificate's own order.
pub fn distinguished_name(node: &str) -> String {
    format!("O={NODE_ORGANIZATION},CN={}", common_name(node))
}

/// `volume_context`: what a volume's StorageClass, or the author of a static PersistentVolume, says to those who publish it.
pub mod volume_context {
    /// `true`: beside its block device a published volume has a vhost-user-blk socket.
    pub const VHOST_USER_BLK: &str = "vhostUserBlk";
    /// Request queues of that socket, 1 to 64.
    pub const VHOST_USER_BLK_QUEUES: &str = "vhostUserBlkQueues";
    /// Name of the volume's claim: the socket is found by it.
    pub const CLAIM: &str = "claim";
    /// UID of the pod, which kubelet adds where it does (`podInfoOnMount`).
    pub const POD_UID: &str = "csi.storage.k8s.io/pod.uid";
}

/// `publish_context`: what ControllerPublishVolume tells NodeStageVolume.
pub mod publish_context {
    /// The volume's UUID.
    pub const UUID: &str = "uuid";
    /// 20 characters: base32 of the UUID's first 100 bits.
    pub const SERIAL: &str = "serial";
    /// One of [`LOOP`], [`NVME`], [`VIRTIO_BLK`].
    pub const KIND: &str = "kind";
    /// For [`LOOP`] the path of the volume's file in the card's directory of exports, else a PCI address.
    pub const ADDRESS: &str = "address";
    /// Bytes when it was published.
    pub const SIZE: &str = "size";
    /// `true`: nothing was ever written to it, so a file system may be made; else `false`.
    pub const FRESH: &str = "fresh";

    /// Directory, on the host, of the volume's vhost-user-blk socket; not there where the volume has none.
    pub const VHOST_USER_SOCKET: &str = "vhost-user-socket";

    /// A loop device over a file.
    pub const LOOP: &str = "loop";
    /// A namespace of an NVMe function.
    pub const NVME: &str = "nvme";
    /// A virtio-blk function.
    pub const VIRTIO_BLK: &str = "virtio-blk";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_built_of_each_other() {
        let user = format!(
            "system:serviceaccount:{}:{NODE_SERVICE_ACCOUNT}",
            names::SYSTEM_NAMESPACE
        );
        assert_eq!(NODE_USER, user);
        assert!(SIGNER.starts_with(names::GROUP));
        assert_eq!(
            distinguished_name("node-1"),
            "O=storage.iaas.yusur.io,CN=node-1"
        );
        assert!(common_name(&"a".repeat(65)).len() <= 64);
    }
    #[test]
    fn the_path_of_a_socket_is_known_before_it_is_made() {
        let path = vhost_path("data-1").unwrap();
        assert_eq!(
            path,
            "/var/run/kubevirt-hooks/outboard/blk/data-1/disk.sock"
        );
        assert_eq!(vhost_path(&"c".repeat(60)).unwrap().len(), 107);
        let long = vhost_path(&"c".repeat(61)).unwrap_err();
        assert!(long.contains("at most 60 characters"), "{long}");
        for bad in ["", ".", "..", "a/b", "A", "-a", "a b"] {
            assert!(
                vhost_path(bad).unwrap_err().contains("is not the name"),
                "{bad}"
            );
        }
        assert_eq!(vhost_directory("u"), "u.vhost");
    }
}
