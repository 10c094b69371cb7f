//! How a VM comes to its pod's port: by a socket that Open vSwitch reads, or by a tap behind the pod's veth pair.

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{IFNAME, NODE, VM_UID};
use crate::cni_call::CniCall;
use crate::cni_lab::CniLab;
use crate::cni_network::PodRow;
use crate::cni_sandbox::CniSandbox;
use crate::libvirt::QEMU_USER;

/// What KubeVirt calls them.
const BRIDGE: &str = "k6t-net1";
const TAP: &str = "tap-net1";
/// The pod's end of the veth pair gives its address to the guest, as KubeVirt's bridge binding does it.
const OTHER_MAC: &str = "02:00:00:00:00:99";

/// One of the two ways. Both are the same logical port: the same address, the same flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plug {
    /// `"kind": "vhostuser"`.
    VhostUser,
    /// A veth pair, and in the pod a bridge of it and of the VM's tap.
    Tap,
}

impl Plug {
    pub(super) const ALL: [Self; 2] = [Self::VhostUser, Self::Tap];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::VhostUser => "vhost-user",
            Self::Tap => "veth, bridge, tap",
        }
    }

    /// The plugin's ADD, and what virt-launcher does before the domain starts.
    pub(super) fn add(self, lab: &CniLab, pod: &CniSandbox<'_>, row: &PodRow) -> Result<()> {
        self.call("ADD", lab, pod, row)?;
        if self == Self::VhostUser {
            return Ok(());
        }
        let script = format!(
            "ip link set {IFNAME} down\nip addr flush dev {IFNAME}\nip link set {IFNAME} address {OTHER_MAC}\n\
             ip link add {BRIDGE} type bridge\nip tuntap add {TAP} mode tap user {QEMU_USER} group {QEMU_USER}\n\
             for link in {IFNAME} {TAP}; do ip link set $link master {BRIDGE} up; done\nip link set {BRIDGE} up\n"
        );
        pod.exec(&["sh", "-ec", &script]).map(drop)
    }

    /// The plugin's DEL, and the end of what was made for the domain.
    pub(super) fn delete(self, lab: &CniLab, pod: &CniSandbox<'_>, row: &PodRow) -> Result<()> {
        if self == Self::Tap {
            for link in [TAP, BRIDGE] {
                pod.exec(&["ip", "link", "delete", link])?;
            }
        }
        self.call("DEL", lab, pod, row)
    }

    fn call(self, verb: &str, lab: &CniLab, pod: &CniSandbox<'_>, row: &PodRow) -> Result<()> {
        let mut config = json!({
            "cniVersion": "1.1.0", "name": "fast", "type": "outboard", "subnet": row.facts.subnet, "timeoutSeconds": 20,
        });
        if self == Self::VhostUser {
            config["kind"] = "vhostuser".into();
        }
        let call = CniCall::new(verb, config.to_string()).of(pod, row);
        let outcome = call.run(lab.node(NODE))?;
        outcome
            .result()
            .with_context(|| format!("{verb} of the VM's pod"))
            .map(drop)
    }

    /// The domain's interface.
    pub(super) fn interface(self, row: &PodRow) -> String {
        let what = match self {
            Self::VhostUser => format!(
                "<interface type='vhostuser'><source type='unix' mode='server' \
                 path='/var/run/kubevirt-hooks/outboard/net/{IFNAME}.sock'/>"
            ),
            Self::Tap => {
                format!("<interface type='ethernet'><target dev='{TAP}' managed='no'/>")
            }
        };
        let mac = &row.facts.mac;
        format!("{what}<mac address='{mac}'/><model type='virtio'/></interface>")
    }
}

/// The hook volume of the VM's pod, as kubelet would make it.
pub(super) fn hooks() -> String {
    format!("/var/lib/kubelet/pods/{VM_UID}/volumes/kubernetes.io~empty-dir/hook-sidecar-sockets")
}
