//! How things are called: API group, paths, OVN rows, identities.
//!
//! A name that two programs must spell alike is made here and nowhere else.

use sha2::{Digest, Sha256};

/// API group of our custom resources, and prefix of our labels and annotations.
pub const GROUP: &str = "iaas.yusur.io";
/// Version of the custom resources.
pub const VERSION: &str = "v1";
/// Namespace of Outboard's own workloads.
pub const SYSTEM_NAMESPACE: &str = "outboard-system";

/// `signerName` of the CertificateSigningRequests for chassis certificates.
pub const SIGNER: &str = "iaas.yusur.io/node";
/// Organization in the subject of a chassis certificate.
pub const CHASSIS_ORGANIZATION: &str = "outboard:chassis";
/// Service account of `cni-node` (that of its identity container: the only one with a token).
pub const NODE_SERVICE_ACCOUNT: &str = "cni-node";
/// Service account of `cni-controller`.
pub const CONTROLLER_SERVICE_ACCOUNT: &str = "cni-controller";
/// User name under which the API server sees [`NODE_SERVICE_ACCOUNT`].
pub const NODE_USER: &str = "system:serviceaccount:outboard-system:cni-node";
/// `signerName` of the CertificateSigningRequests for the channel between a host and its DPU.
pub const CHANNEL_SIGNER: &str = "iaas.yusur.io/channel";
/// Organization in the subject of a certificate for the channel.
pub const CHANNEL_ORGANIZATION: &str = "outboard:channel";
/// Service account of `cni-node` on hosts (that of its identity container: the only one with a token).
pub const NODE_HOST_SERVICE_ACCOUNT: &str = "cni-node-host";
/// User name under which the API server sees [`NODE_HOST_SERVICE_ACCOUNT`].
pub const NODE_HOST_USER: &str = "system:serviceaccount:outboard-system:cni-node-host";
/// Service account of `cni-node` on DPUs.
pub const NODE_DPU_SERVICE_ACCOUNT: &str = "cni-node-dpu";
/// User name under which the API server sees [`NODE_DPU_SERVICE_ACCOUNT`].
pub const NODE_DPU_USER: &str = "system:serviceaccount:outboard-system:cni-node-dpu";
/// Key in a request's `extra` in which the API server puts the node a token is bound to.
pub const EXTRA_NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// Key in a request's `extra` in which the API server puts the pod a token is bound to.
pub const EXTRA_POD_NAME: &str = "authentication.kubernetes.io/pod-name";

/// Annotation of a pod: addresses *requested* for eth0, comma separated, at most one a family.
pub const ANNOTATION_IPS: &str = "iaas.yusur.io/ips";
/// Annotation of a pod: the MAC address *requested* for eth0.
pub const ANNOTATION_MAC: &str = "iaas.yusur.io/mac";
/// Annotation of a VM, which KubeVirt copies to its pods: addresses *requested* for its secondary networks (see
/// [`crate::request_network_ips`]).
pub const ANNOTATION_NETWORK_IPS: &str = "iaas.yusur.io/network-ips";
/// Annotation of a pod: its secondary networks (Network Plumbing Working Group's specification).
pub const ANNOTATION_NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
/// Annotation of a pod in which Multus reports what its networks got.
pub const ANNOTATION_NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";
/// Label that KubeVirt puts on the pod that a virtual machine is to migrate to: the UID of the migration.
pub const LABEL_MIGRATION_UID: &str = "kubevirt.io/migrationJobUID";
/// Annotation of a mirror pod: the UID of the static pod, which is what CNI_ARGS carries.
pub const ANNOTATION_MIRROR: &str = "kubernetes.io/config.mirror";

/// Label of a Node: what it is in the network, [`MODE_HOST`] or [`MODE_DPU`]. Without it: a plain node.
pub const MODE_LABEL: &str = "iaas.yusur.io/mode";
/// A host whose network is on its DPU.
pub const MODE_HOST: &str = "host";
/// A DPU.
pub const MODE_DPU: &str = "dpu";
/// Annotation of a host's Node: the chassis that its ports are on. Written by cni-controller, and good for as long as no Dpu
/// names the host: when one is deleted no port moves.
pub const ANNOTATION_CHASSIS: &str = "iaas.yusur.io/chassis";
/// Condition of a host's Node: whether its DPU serves it.
pub const NODE_DPU_READY: &str = "OutboardDpuReady";
/// ConfigMap in our namespace: by a DPU's node, `<name>/<uid>` of its Dpu. Written by cni-controller, read by the API server's admission.
pub const DPU_DIRECTORY: &str = "outboard-dpus";

/// The `type` of our plugin in CNI configurations, and the file name of its binary.
pub const CNI_TYPE: &str = "outboard";
/// The `kind` of a network whose interfaces are vhost-user sockets.
pub const KIND_VHOST_USER: &str = "vhostuser";
/// Where `cni-node` listens for the plugin.
pub const CNI_SOCKET: &str = "/run/outboard/cni.sock";
/// The network configuration list that the installer writes.
pub const CNI_CONFLIST: &str = "/etc/cni/net.d/05-outboard.conflist";
/// The plugin as the installer puts it.
pub const CNI_BINARY: &str = "/opt/cni/bin/outboard";
/// Directory (0700) of the node's key, certificate and CA bundle.
pub const IDENTITY_DIR: &str = "/var/lib/outboard/identity";
/// Directory (0700) of the node's key, certificate and CA bundle for storage.
pub const STORAGE_IDENTITY_DIR: &str = "/var/lib/outboard/storage-identity";
/// Directory (0700) of the node's key, certificate and CA bundle for the channel, and of its pairing.
pub const CHANNEL_IDENTITY_DIR: &str = "/var/lib/outboard/channel";
/// TCP port on which a DPU serves its host (mTLS), unless its Dpu says otherwise.
pub const CHANNEL_PORT: u16 = 9478;
/// Directory of the journal of attachments.
pub const JOURNAL_DIR: &str = "/var/lib/outboard/attachments";
/// The local Open vSwitch database.
pub const OVS_DB: &str = "/run/openvswitch/db.sock";

/// The VPC that the cluster itself lives in.
pub const DEFAULT_VPC: &str = "default";
/// The subnet of pods whose namespace has none of its own.
pub const DEFAULT_SUBNET: &str = "default";
/// The subnet of the nodes' ports, in the default VPC.
pub const JOIN_SUBNET: &str = "join";
/// The node's own interface on the join subnet.
pub const GATEWAY_IFNAME: &str = "ob0";
/// The pod's first interface.
pub const PRIMARY_IFNAME: &str = "eth0";

/// A certificate's common name holds this many characters (RFC 5280, ub-common-name).
const COMMON_NAME_MAX: usize = 64;
const HASH_DIGITS: usize = 40;

/// The chassis name, and certificate common name, of a node.
///
/// The node's name where that fits into a common name, else `n-` and a hash of it. A node whose
/// name looks like such a hash is hashed too, so that no two nodes share a chassis name.
pub fn chassis(node: &str) -> String {
    let looks_hashed = node
        .strip_prefix("n-")
        .is_some_and(|rest| rest.len() == HASH_DIGITS && rest.bytes().all(is_lower_hex));
    if node.len() <= COMMON_NAME_MAX && !looks_hashed {
        return node.to_owned();
    }
    let digest = Sha256::digest(node.as_bytes());
    let mut name = String::from("n-");
    for byte in digest.iter().take(HASH_DIGITS / 2) {
        name.push_str(&format!("{byte:02x}"));
    }
    name
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// The external_ids key that marks a Port_Binding as one that `chassis` may bind.
pub fn marker(chassis: &str) -> String {
    format!("node.{chassis}")
}

/// The logical switch port of a pod's (or VM's) interface. `ifname` only for secondary interfaces.
pub fn pod_port(namespace: &str, owner: &str, subnet: &str, ifname: Option<&str>) -> String {
    match ifname {
        None => format!("{namespace}/{owner}/{subnet}"),
        Some(ifname) => format!("{namespace}/{owner}/{subnet}/{ifname}"),
    }
}

/// Namespace and owner (a pod, or a VM) of a port that [`pod_port`] has named; none for another one's name.
pub fn owner_of_port(port: &str) -> Option<(&str, &str)> {
    let mut parts = port.split('/');
    let (namespace, owner) = (parts.next()?, parts.next()?);
    // A subnet, and perhaps an interface.
    (parts.next().is_some() && parts.nth(1).is_none()).then_some((namespace, owner))
}

/// The logical switch port of a node's `ob0`.
pub fn node_port(node: &str) -> String {
    format!("node/{node}")
}

/// The router port of a subnet, on the switch's side (a Logical_Switch_Port of type router).
pub fn switch_router_port(subnet: &str) -> String {
    format!("{subnet}/router")
}

/// The router port of a subnet, on the router's side (a Logical_Router_Port).
pub fn router_port(vpc: &str, subnet: &str) -> String {
    format!("{vpc}/{subnet}")
}

/// The Load_Balancer_Group of a VPC.
pub fn load_balancer_group(vpc: &str) -> String {
    format!("vpc/{vpc}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_port_is_read_from_its_name() {
        for ifname in [None, Some("net1")] {
            let port = pod_port("ns", "db", "storage", ifname);
            assert_eq!(owner_of_port(&port), Some(("ns", "db")));
        }
        for other in [
            node_port("n1"),
            switch_router_port("s"),
            "a/b/c/d/e".to_owned(),
        ] {
            assert_eq!(owner_of_port(&other), None);
        }
    }

    #[test]
    fn short_node_names_are_chassis_names() {
        assert_eq!(chassis("n1"), "n1");
        let exactly = "a".repeat(64);
        assert_eq!(chassis(&exactly), exactly);
    }

    #[test]
    fn long_node_names_are_hashed_and_fit_a_common_name() {
        let long = "a".repeat(65);
        assert!(chassis(&long).len() <= 64);
        assert!(chassis(&long).starts_with("n-"));
        assert_ne!(chassis(&long), chassis(&"a".repeat(66)));
    }

    #[test]
    fn users_are_service_accounts() {
        for (user, account) in [
            (NODE_USER, NODE_SERVICE_ACCOUNT),
            (NODE_HOST_USER, NODE_HOST_SERVICE_ACCOUNT),
            (NODE_DPU_USER, NODE_DPU_SERVICE_ACCOUNT),
        ] {
            let expected = format!("system:serviceaccount:{SYSTEM_NAMESPACE}:{account}");
            assert_eq!(user, expected);
        }
    }

    #[test]
    fn a_node_cannot_be_named_like_the_hash_of_another() {
        let victim = chassis(&"v".repeat(80));
        assert_ne!(chassis(&victim), victim);
        assert_eq!(chassis("n-1"), "n-1");
    }
}
