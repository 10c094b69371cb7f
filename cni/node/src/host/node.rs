//! Everything that the operations on a host's attachments share.

use std::time::Duration;

use channel::Link;
use cni_bin::cni::CNIResult;
use cni_bin::code;
use tokio::sync::watch;
use tokio::time::Instant;

use super::attached::Attached;
use super::card::Card;
use super::metrics::Metrics as HostMetrics;
use super::record::Record;
use super::{attach, check, detach, gc, status};
use crate::attachment::AttachmentId;
use crate::call::{Add, Check, Devices};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::netns::Netns;
use crate::server::Operations;
use crate::stages::Stages;
use crate::store::Store;
use crate::under_way::UnderWay;
use crate::vhostuser::Kind;
use daemon::keyed::Locks;

/// The sandbox of the host's own interface, as the DPU knows it.
pub(crate) const HOST: &str = "host";

/// This host's attachments and what they are made of.
pub(crate) struct HostNode {
    pub(crate) host: Netns,
    pub(crate) card: Card,
    pub(crate) link: Link,
    /// What the link says to the DPU.
    pub(crate) attached: Attached,
    pub(crate) store: Store<Record>,
    /// One operation at a time per attachment; the key is what its host link would be called on a plain node.
    pub(crate) locks: Locks,
    /// ADDs, so that a DEL does not wait for one that waits.
    pub(crate) under_way: UnderWay,
    /// Whether what an earlier process left has been cleaned up.
    pub(crate) recovered: watch::Receiver<bool>,
    pub(crate) metrics: Metrics,
    pub(crate) host_metrics: HostMetrics,
}

impl HostNode {
    /// Waits until what an earlier process left is cleaned up: an ADD before that could be given what is not back.
    pub(crate) async fn recovered(&self, deadline: Instant) -> Result<(), Error> {
        let mut recovered = self.recovered.clone();
        while !*recovered.borrow_and_update() {
            if !crate::wait::change(&mut recovered, deadline).await {
                return Err(Error::new(
                    code::TRY_AGAIN_LATER,
                    "cni-node has not yet cleaned up what was left before it started.",
                    "See /readyz of cni-node on this node and its log.",
                ));
            }
        }
        Ok(())
    }
}

/// How long an ADD waits for a session with the DPU. A restart there takes less; and who waits longer wants to know why.
const LOSS: Duration = Duration::from_secs(10);

impl HostNode {
    /// Does what needs the DPU, unless there has been no session with it for a while.
    pub(crate) async fn unless_lost<T>(
        &self,
        wait: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            done = wait => done,
            why = self.lost() => Err(Error::new(
                code::TRY_AGAIN_LATER,
                format!("The DPU cannot be asked: {why}."),
                "See that the DPU runs and that a Dpu object pairs it with this host; the runtime tries again by itself.",
            )),
        }
    }

    /// Returns when there has been no session for [`LOSS`]: why.
    async fn lost(&self) -> String {
        let mut state = self.link.state();
        loop {
            // The sender lives in the link. What is read is dropped at once: it locks the state.
            let down = state.wait_for(|state| state.why_not().is_some());
            if down.await.map(drop).is_err() {
                return std::future::pending().await;
            }
            let up = state.wait_for(|state| state.why_not().is_none());
            if tokio::time::timeout(LOSS, up).await.map(drop).is_err() {
                let why = state.borrow().why_not();
                if let Some(why) = why {
                    return why;
                }
            }
        }
    }
}

impl Operations for HostNode {
    const DEVICES: Devices = Devices::Functions;

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    async fn add(
        &self,
        add: &Add,
        stages: &mut Stages,
        deadline: Instant,
    ) -> Result<CNIResult, Error> {
        attach::add(self, add, stages, deadline).await
    }

    async fn del(
        &self,
        id: &AttachmentId,
        stages: &mut Stages,
        deadline: Instant,
    ) -> Result<(), Error> {
        detach::del(self, id, stages, deadline).await
    }

    async fn check(&self, check: &Check, deadline: Instant) -> Result<(), Error> {
        check::check(self, check, deadline).await
    }

    async fn gc(
        &self,
        network: &str,
        valid: Option<&[AttachmentId]>,
        stages: &mut Stages,
        deadline: Instant,
    ) -> Result<(), Error> {
        gc::gc(self, network, valid, stages, deadline).await
    }

    async fn status(&self, _kind: &Kind) -> Result<(), Error> {
        status::status(self)
    }
}

/// How long one question to the DPU may take that no runtime waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
