//! DEL: the function out of the pod and the record out of the journal, the DPU's port alongside. Each step is fine when there is nothing
//! left to do, and needs nothing but the key.
//!
//! A pod must not hang in deletion because the DPU is down: what it is not told now it learns with the next full set, in which the
//! attachment is missing.

use std::time::Duration;

use channel::LinkState;
use fail::fail_point;
use tokio::time::Instant;
use tracing::warn;

use super::journey;
use super::node::{HOST, HostNode};
use super::record::Record;
use crate::attachment::AttachmentId;
use crate::error::Error;
use crate::netns::Netns;
use crate::node::UNDO;
use crate::stages::{Stages, timed};

/// Serves a DEL. One without a record has nothing here and nothing on the DPU.
pub(crate) async fn del(
    node: &HostNode,
    id: &AttachmentId,
    stages: &mut Stages,
    deadline: Instant,
) -> Result<(), Error> {
    if id.container == HOST {
        return Ok(());
    }
    node.under_way.give_up(id);
    let _alone = node.locks.lock(&id.host_link()).await;
    fail_point!("host::del_begun");
    match node.store.get(id) {
        Some(record) => remove(node, &record, stages, deadline).await,
        None => Ok(()),
    }
}

/// Removes everything of an attachment. The caller holds its lock.
pub(crate) async fn remove(
    node: &HostNode,
    record: &Record,
    stages: &mut Stages,
    deadline: Instant,
) -> Result<(), Error> {
    node.attached.leave(record);
    let patience = deadline.min(Instant::now() + UNDO);
    let ((here, netns), dpu) = tokio::join!(
        timed(take_back(node, record)),
        timed(tell(node, record, patience))
    );
    stages.note("netns", netns);
    stages.note("detach", dpu.1);
    let journal = here?;
    stages.note("journal", journal);
    node.card.release(record.function, &record.id);
    fail_point!("host::forgotten");
    Ok(())
}

/// Takes back what a failed ADD has done; what cannot be taken back now is the reconcile loop's.
pub(crate) async fn undo(node: &HostNode, record: &Record) {
    let deadline = Instant::now() + UNDO;
    if let Err(error) = remove(node, record, &mut Stages::default(), deadline).await {
        warn!(
            sandbox = record.id.container,
            ifname = record.id.ifname,
            "undo is finished later: {error}"
        );
    }
}

/// Whether the pod's namespace is there and has the attachment's function.
pub(crate) async fn is_in_pod(node: &HostNode, record: &Record) -> Result<bool, Error> {
    match pod_netns(record) {
        Some(netns) => journey::is_in(&node.card, record.function, &netns).await,
        None => Ok(false),
    }
}

/// The pod's namespace, if it is the one that it was.
pub(crate) fn pod_netns(record: &Record) -> Option<Netns> {
    let sandbox = record.sandbox()?;
    Netns::of_pod(&sandbox.netns)
        .ok()
        .filter(|netns| netns.identity() == sandbox.identity)
}

/// The host's part; how long the journal took of it.
async fn take_back(node: &HostNode, record: &Record) -> Result<Duration, Error> {
    let function = match node.card.function(record.function) {
        Some(function) => Some(function),
        // Not looked at yet. A card that cannot be read must not keep a pod from going: its namespace's end brings the function home.
        None => match node.card.look().await {
            Ok(functions) => functions.get(&record.function).cloned(),
            Err(error) => {
                warn!(function = %record.function, "the function comes home with the pod's end: {error}");
                None
            }
        },
    };
    if let Some(function) = function {
        let netns = pod_netns(record);
        journey::come_back(&node.card, &node.host, &function, netns.as_ref()).await?;
    }
    fail_point!("host::returned");
    let (forgotten, time) = timed(node.store.forget(&record.id)).await;
    forgotten.map(|()| time)
}

/// The DPU's part.
async fn tell(node: &HostNode, record: &Record, deadline: Instant) {
    if !matches!(*node.link.state().borrow(), LinkState::Up { .. }) {
        return;
    }
    let told = node.link.detach(record.key(), record.ordinal, deadline);
    if let Err(failure) = Box::pin(told).await {
        warn!(
            sandbox = record.id.container,
            ifname = record.id.ifname,
            "the DPU detaches it when it is told of all: {failure}"
        );
        node.link.sync_now();
    }
}
