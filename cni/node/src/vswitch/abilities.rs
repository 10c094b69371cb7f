//! What ovs-vswitchd of this node can do beside the kernel's interfaces: DPDK, and ports that are sockets.

use std::collections::BTreeMap;

use super::{Interface, Root, Vswitch};
use crate::rows::select;

/// The columns of the root row that say so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Abilities {
    pub(crate) dpdk_initialized: bool,
    /// "none" of a program without DPDK; no value until ovs-vswitchd has come so far.
    pub(crate) dpdk_version: Option<String>,
    /// The types of interfaces that it knows.
    pub(crate) iface_types: Vec<String>,
    /// What it is asked to be.
    pub(crate) other_config: BTreeMap<String, String>,
}

impl Vswitch {
    /// What ovs-vswitchd says of itself; none while the database cannot be relied on.
    pub(crate) fn abilities(&self) -> Option<Abilities> {
        if self.trouble().is_some() {
            return None;
        }
        let root = self
            .replica
            .read(|rows| select::<Root>(rows, |_| true).pop())?;
        Some(Abilities {
            dpdk_initialized: root.dpdk_initialized,
            dpdk_version: root.dpdk_version,
            iface_types: root.iface_types,
            other_config: root.other_config,
        })
    }

    /// Whether br-int is to be of the userspace datapath.
    pub(crate) fn userspace(&self) -> bool {
        self.userspace
    }

    /// The Interfaces that connect to a vhost-user socket, whosever they are.
    pub(crate) fn at_socket(&self, path: &str) -> Vec<Interface> {
        self.replica.read(|rows| {
            select(rows, |row| {
                let options = row.get("options");
                options.and_then(|options| options.get_str("vhost-server-path")) == Some(path)
            })
        })
    }
}
