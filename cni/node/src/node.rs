//! Everything that the operations on attachments share.

use std::time::Duration;

use cni_bin::code;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;
use crate::metrics::Metrics;
use crate::netns::Netns;
use crate::ovn_controller::OvnController;
use crate::southbound::Southbound;
use crate::store::Store;
use crate::under_way::UnderWay;
use crate::vhostuser::VhostUser;
use crate::vswitch::Vswitch;
use daemon::keyed::Locks;

/// How long undoing may take, whatever the call's deadline was.
pub(crate) const UNDO: Duration = Duration::from_secs(5);

/// This node's attachments and what they are made of.
pub(crate) struct Node {
    pub(crate) host: Netns,
    pub(crate) southbound: Southbound,
    pub(crate) vswitch: Vswitch,
    pub(crate) ovn_controller: OvnController,
    pub(crate) store: Store,
    /// One operation at a time per attachment; the key is the name of its host link.
    pub(crate) locks: Locks,
    /// ADDs, so that a DEL does not wait for one that waits.
    pub(crate) under_way: UnderWay,
    /// The largest MTU of a pod over this node's underlay; none while no link has the encapsulation address.
    pub(crate) mtu: watch::Receiver<Option<u32>>,
    /// Whether what an earlier process left has been cleaned up.
    pub(crate) recovered: watch::Receiver<bool>,
    pub(crate) metrics: Metrics,
    /// What vhost-user interfaces need beside.
    pub(crate) vhost: VhostUser,
}

impl Node {
    /// Waits until what an earlier process left is cleaned up: an ADD before that could be taken for a leftover.
    pub(crate) async fn recovered(&self, deadline: Instant) -> Result<(), Error> {
        let mut recovered = self.recovered.clone();
        while !*recovered.borrow_and_update() {
            if !crate::wait::change(&mut recovered, deadline).await {
                return Err(self.vswitch.unavailable().unwrap_or_else(|| {
                    Error::new(
                        code::TRY_AGAIN_LATER,
                        "cni-node has not yet cleaned up what was left before it started.",
                        "See /readyz of cni-node on this node and its log.",
                    )
                }));
            }
        }
        Ok(())
    }

    /// The MTU that the underlay leaves for pods; waits for it until the deadline.
    pub(crate) async fn mtu(&self, deadline: Instant) -> Result<u32, Error> {
        let mut mtu = self.mtu.clone();
        loop {
            if let Some(mtu) = *mtu.borrow_and_update() {
                return Ok(mtu);
            }
            if !crate::wait::change(&mut mtu, deadline).await {
                return Err(Error::new(
                    code::TRY_AGAIN_LATER,
                    "The MTU of pods is not known: no link of this node has the encapsulation address.",
                    "Correct cni-node's --encap-ip, or give that address to the underlay's link.",
                ));
            }
        }
    }
}
