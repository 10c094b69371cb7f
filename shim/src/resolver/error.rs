//! Why an interface has no socket: one sentence with cause and remedy.

use crate::annotation;

/// Why an interface has no socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("interface {interface} of VM {vm}: {why}")]
pub struct Error {
    /// The VM, `namespace/name`.
    pub vm: String,
    /// The interface.
    pub interface: String,
    /// Cause and remedy.
    pub why: Box<Why>,
}

/// Cause and remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself")]
pub enum Why {
    /// May come: ask again.
    #[error(
        "{file} does not name network {network} yet; it is written when the pod is Ready, from the pod's annotation k8s.v1.cni.cncf.io/network-status: see whether that has an entry for {ifname}, and why the pod is not Ready if it has none"
    )]
    Late {
        file: &'static str,
        network: String,
        ifname: String,
    },
    /// May come, where the pod's own network is ours.
    #[error(
        "it is bound on the pod's own network, and network-info does not name it; a vhost-user interface needs a secondary network: give the VM a network with `multus: {{networkName: …}}` whose NetworkAttachmentDefinition has \"kind\": \"vhostuser\""
    )]
    PodNetwork { mounted: bool },
    #[error("the VM has no network of that name; add one under spec.networks")]
    NoNetwork,
    #[error(
        "network-info names network {network} without deviceInfo, and the pod has a link of that interface, or its links can't be seen; give its NetworkAttachmentDefinition \"kind\": \"vhostuser\" and \"capabilities\": {{\"CNIDeviceInfoFile\": true}}, and restart the VM"
    )]
    NoDeviceInfo { network: String },
    #[error(
        "{file} can't be read: {error}; it is written by KubeVirt or Kubernetes and nobody else should"
    )]
    Malformed { file: &'static str, error: String },
    #[error(
        "{file} says it is a device of type {kind:?}, which this binding can't use; it needs vhost-user (or tap): let its NetworkAttachmentDefinition have \"kind\": \"vhostuser\", or bind it otherwise"
    )]
    Kind { file: &'static str, kind: String },
    #[error("{file} gives mode {mode:?} for its socket; only client and server are known")]
    BadMode { file: &'static str, mode: String },
    #[error(
        "its socket's path {path:?} {fault}; a path is absolute, plain and at most 107 octets long: look at the CNI's settings"
    )]
    BadPath { path: String, fault: &'static str },
    #[error(
        "its socket {path} is interface {other}'s as well; each needs a NetworkAttachmentDefinition entry of its own"
    )]
    SharedSocket { path: String, other: String },
    #[error("{mac:?} is not the MAC address of one interface; correct it in {at}")]
    BadMac { mac: String, at: &'static str },
    #[error(
        "the VM's MAC {vm} is not {pod}, which the CNI gave the port: every packet would be dropped; remove macAddress from the VM, or give the network a CNI that honours it"
    )]
    OtherMac { vm: String, pod: String },
    #[error(
        "no MAC is known, and with another one every packet would be dropped; set macAddress in the VM, or register the binding with `downwardAPI: device-info`"
    )]
    NoMac,
    #[error("MTU {mtu} is none; it lies between 68 and 65535")]
    BadMtu { mtu: i64 },
    #[error("model {model:?} can't be vhost-user; leave it out, or set virtio")]
    NotVirtio { model: String },
    #[error(
        "the VM has launchSecurity, and a switch can't read a guest's encrypted memory; leave one of the two out"
    )]
    Encrypted,
    #[error("{file}: {fault}")]
    Claim { file: &'static str, fault: String },
    #[error(
        "the VM migrates from {from} to {to}, and its interface would become {here} where it was {there}: QEMU can't do that; migrate to a node of the same kind (annotation {key} says what the VM runs on, vhost-user if it is not set), or stop and start the VM",
        key = annotation::KIND
    )]
    OtherKind {
        from: String,
        to: String,
        here: &'static str,
        there: String,
    },
}

impl Error {
    /// Whether waiting may help.
    #[must_use]
    pub fn is_late(&self) -> bool {
        matches!(
            *self.why,
            Why::Late { .. } | Why::PodNetwork { mounted: true }
        )
    }
}
