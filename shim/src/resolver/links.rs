//! The links of the pod's network namespace, which this container shares: the simplest truth about how an interface is plugged.
//!
//! A CNI that made a tap because the node has no DPDK has made one of the name that KubeVirt computes, and has written the port's MAC
//! address beside it. An interface that is a socket has no link at all.

use std::collections::BTreeMap;

use super::{Device, Plug};
use crate::vmi::{Network, tap};

/// What it is called in log lines.
pub const SAID_BY: &str = "the links in the pod";

/// What the CNI's word in a tap's alias begins with.
const ALIAS: &str = "outboard ";
/// Of the flags of a tap: several queues may attach to it, and one alone may not (linux/if_tun.h).
const MULTI_QUEUE: u32 = 0x100;

/// A link, as its files in sysfs are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// `ifalias`.
    pub alias: String,
    /// `mtu`.
    pub mtu: String,
    /// `tun_flags`; none: it is no tap.
    pub tun_flags: Option<String>,
}

/// Those links that were looked for and are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links(pub BTreeMap<String, Link>);

impl Links {
    /// The tap of a network.
    fn tap(&self, network: &Network) -> Option<&Link> {
        let link = self.0.get(&tap(&network.name))?;
        link.tun_flags.is_some().then_some(link)
    }

    /// The tap that the CNI has made for a network.
    pub(super) fn device(&self, network: &Network) -> Option<Device> {
        let link = self.tap(network)?;
        let mac = link.alias.trim().strip_prefix(ALIAS).unwrap_or_default();
        Some(Device {
            plug: Some(Plug::Tap),
            mac: mac.to_owned(),
            mtu: link.mtu.trim().parse().unwrap_or(0),
        })
    }

    /// The pairs of queues of a network's tap: libvirt opens it as one of several queues where it is told more than one, and the kernel
    /// refuses whoever opens it otherwise than it was made.
    pub(super) fn queues(&self, network: &Network, asked: Option<u32>) -> Option<u32> {
        let flags = self.tap(network).and_then(|link| {
            let flags = link.tun_flags.as_deref()?.trim();
            u32::from_str_radix(flags.strip_prefix("0x")?, 16).ok()
        });
        match flags.map(|flags| flags & MULTI_QUEUE != 0) {
            None => asked,
            Some(false) => None,
            Some(true) => Some(asked.unwrap_or(1).max(2)),
        }
    }

    /// Whether the pod has a link of the interface's own name: a network of another kind.
    pub(super) fn has(&self, ifname: &str) -> bool {
        self.0.contains_key(ifname)
    }
}
