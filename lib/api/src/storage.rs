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
}
