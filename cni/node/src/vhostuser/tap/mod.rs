//! What a machine gets on a node without DPDK: a tap in its pod's namespace, so that the same machine boots there.
//!
//! Open vSwitch has an ordinary port, a veth pair's end. The other end, in the pod, has no address and a MAC of its own, and a bridge that
//! only passes on ([`links`]) joins it to the tap: the guest behind it has the row's MAC and address, and is the port. [`attach`] makes it,
//! after its record: what a kill leaves in the namespace is found by that. [`check`] looks at all of it.

pub(crate) mod attach;
pub(crate) mod check;
pub(super) mod links;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use cni_bin::code;
use fail::fail_point;
use serde::{Deserialize, Serialize};

use super::asked::Asked;
use super::withdraw::tell_nobody;
use crate::attachment::{Pod, Record};
use crate::error::Error;
use crate::netns::{Netns, NetnsError};
use crate::node::Node;
use crate::plumb::unplumb;

/// How many digits of the network's hash KubeVirt puts into names of links.
const DIGITS: usize = 11;

/// An attachment's tap, as its record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tap {
    /// Its name in the pod, which is the one that goes into the machine's definition.
    pub(crate) name: String,
    /// The name of the bridge in the pod.
    pub(crate) bridge: String,
    /// Of all links, bytes.
    pub(crate) mtu: u32,
    /// Pairs of queues that the machine may use.
    pub(crate) queues: u16,
    /// The file that tells Multus.
    pub(crate) device_info: Option<PathBuf>,
}

impl Tap {
    /// The tap of a machine's interface; its MTU is not known yet.
    ///
    /// # Errors
    /// The interface has no name of which the machine's side could compute the tap's.
    pub(super) fn new(pod: &Pod, ifname: &str, asked: &Asked) -> Result<Self, Error> {
        let hash = ifname.strip_prefix("pod").filter(|hash| {
            hash.len() == DIGITS && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        let Some(hash) = hash else {
            return Err(Error::new(
                code::REFUSED,
                format!(
                    "Pod {pod}, interface {ifname}: this node has no DPDK, and only an interface that KubeVirt has named (\"pod\" and \
                     {DIGITS} hexadecimal digits) gets a tap instead of its socket."
                ),
                "Give the machine the network through KubeVirt (networks: multus), or let its pod run on a node with DPDK.",
            ));
        };
        Ok(Self {
            name: format!("tap{hash}"),
            bridge: format!("ob-{hash}"),
            mtu: 0,
            queues: asked.queues,
            device_info: asked.device_info.clone(),
        })
    }
}

/// Takes an attachment's remains away. The caller holds its lock and has removed its port. Each step is fine when there is nothing left
/// to do.
pub(crate) async fn withdraw(node: &Node, record: &Record) -> Result<(), Error> {
    unplumb(&node.host, record.id.host_link()).await?;
    fail_point!("tap::unlinked");
    if let Some(tap) = record.tap() {
        match Netns::of_pod(&record.netns) {
            Ok(netns) => {
                let tap = tap.clone();
                netns.run(move || links::remove(&tap)).await??;
            }
            // It has taken everything along.
            Err(NetnsError::Missing { .. } | NetnsError::NotOne { .. }) => {}
            Err(why) => return Err(why.into()),
        }
        fail_point!("tap::removed");
        tell_nobody(tap.device_info.as_deref()).await?;
    }
    fail_point!("tap::withdrawn");
    node.store.forget(&record.id).await
}
