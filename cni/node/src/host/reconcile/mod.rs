//! Keeps journal, card and pods in step: undoes what was cut off, and gives pods back what their card lost and has again.
//!
//! observe → plan → apply, at the start, whenever functions come or go, and every half minute. Operations that are under way hold their
//! attachment's lock: their parts are left alone until they end, and are looked at again then. [`plan`] is pure.

pub(crate) mod plan;
mod resync;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

pub(crate) use resync::resync;

use self::plan::{Action, Observed, Place, PodState, Seen, plan};
use super::detach;
use super::function::{Function, FunctionId};
use super::journey;
use super::node::{HOST, HostNode};
use super::record::Record;
use crate::attachment::AttachmentId;
use crate::error::Error;
use crate::netlink::{Event, Events};
use crate::node::UNDO;
use crate::rounds::{Pace, Why};
use crate::stages::Stages;
use crate::under_way;

/// What a round left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// What could not be put in order, a sentence each.
    pub(crate) problems: Vec<String>,
    /// What only the card can put in order.
    pub(crate) losses: Vec<String>,
    /// Locks of the attachments that had an operation under way.
    pub(crate) busy: Vec<String>,
}

/// Runs until the pace says stop. `recovered` becomes true with the first round that left nothing undone.
pub(crate) async fn run(node: Arc<HostNode>, recovered: watch::Sender<bool>, mut pace: Pace) {
    pace.wake_on(node.card.provider().changed());
    let listener = Arc::clone(&node);
    pace.wake_on_kernel(Events::links(), move |event| comes_home(&listener, event));
    loop {
        let started = Instant::now();
        let left = round(&node).await;
        let attachments = i64::try_from(node.store.len());
        node.metrics
            .attachments
            .set(attachments.unwrap_or(i64::MAX));
        let undone = !left.problems.is_empty();
        pace.finish(started, &[left.problems, left.losses].concat());
        if !undone {
            recovered.send_replace(true);
        }
        let mut ends = under_way::ends(&node.locks, &left.busy);
        let next = async {
            tokio::select! {
                next = pace.next() => next,
                Some(()) = ends.next() => Some(Why::Event),
            }
        };
        if next.await.is_none() {
            return;
        }
    }
}

/// Whether a link is at home that was not known to be.
fn comes_home(node: &HostNode, event: &Event) -> bool {
    match event {
        Event::Link {
            name, gone: false, ..
        } => !node.card.knows_at_home(name),
        Event::Lost => true,
        _ => false,
    }
}

/// One round.
pub(crate) async fn round(node: &HostNode) -> Left {
    let mut left = Left::default();
    let functions = match node.card.look().await {
        Ok(functions) => functions,
        Err(error) => {
            left.problems.push(error.to_string());
            return left;
        }
    };
    let records: BTreeMap<AttachmentId, Record> = node
        .store
        .all()
        .into_iter()
        .map(|record| (record.id.clone(), record))
        .collect();
    left.losses = records
        .values()
        .filter(|record| record.told.is_some() && !functions.contains_key(&record.function))
        .map(|record| {
            format!(
                "function {} of {} is not on the card any more: put it back, or recreate the pod",
                record.function,
                record.owner()
            )
        })
        .collect();
    for action in plan(&observe(&records, &functions)) {
        let done = match &action {
            Action::Remove(id) | Action::Place(id) => {
                let key = id.host_link();
                let Some(_alone) = node.locks.try_lock(&key) else {
                    left.busy.push(key);
                    continue;
                };
                // An operation may have come and gone since the look: an attachment that it touched is another record.
                match records
                    .get(id)
                    .filter(|old| node.store.get(id).as_ref() == Some(old))
                {
                    Some(record) => apply(node, &action, record).await,
                    None => Ok(()),
                }
            }
            Action::Restore(function) => restore(node, &functions, *function).await,
        };
        if let Err(error) = done {
            left.problems.push(error.to_string());
        }
    }
    left
}

fn observe(
    records: &BTreeMap<AttachmentId, Record>,
    functions: &BTreeMap<FunctionId, Function>,
) -> Observed {
    let places: BTreeMap<FunctionId, Place> = functions
        .iter()
        .map(|(id, function)| {
            let place = match &function.here {
                Some(name) => Place::Home {
                    tidy: *name == function.home,
                },
                None if function.vfio => Place::Vfio,
                None => Place::Away,
            };
            (*id, place)
        })
        .collect();
    let seen = |record: &Record| Seen {
        id: record.id.clone(),
        whole: record.told.is_some(),
        function: record.function,
        pod: match (record.sandbox(), places.get(&record.function)) {
            (None, _) => PodState::Host,
            // Where the function is in a pod, that is looked at by nobody: it lives.
            (_, Some(Place::Home { .. } | Place::Vfio)) if detach::pod_netns(record).is_none() => {
                PodState::Gone
            }
            _ => PodState::Alive,
        },
    };
    Observed {
        records: records.values().map(seen).collect(),
        places,
    }
}

async fn apply(node: &HostNode, action: &Action, record: &Record) -> Result<(), Error> {
    let (sandbox, ifname) = (&record.id.container, &record.id.ifname);
    if let (Action::Place(_), Some(told), Some(netns)) =
        (action, &record.told, detach::pod_netns(record))
    {
        let Some(function) = node.card.function(record.function) else {
            // It went away again; its next return is told.
            return Ok(());
        };
        info!(function = %record.function, owner = record.owner(), sandbox, ifname, "giving a pod back its interface, which the card had lost");
        let wiring = told.wiring(&record.id);
        return journey::go(&node.card, &function, &netns, &wiring).await;
    }
    info!(function = %record.function, owner = record.owner(), sandbox, ifname, "removing an attachment that was cut off or whose pod is gone");
    let deadline = Instant::now() + UNDO;
    detach::remove(node, record, &mut Stages::default(), deadline).await
}

/// Gives a function its name at home again, unless somebody has got it meanwhile.
async fn restore(
    node: &HostNode,
    functions: &BTreeMap<FunctionId, Function>,
    id: FunctionId,
) -> Result<(), Error> {
    let nobody = AttachmentId {
        container: HOST.to_owned(),
        ifname: id.to_string(),
    };
    let (Some(function), Some(_)) = (functions.get(&id), node.card.claim_this(id, &nobody)) else {
        return Ok(());
    };
    info!(function = %id, link = function.here, home = function.home, "a function came home under another name");
    let back = journey::come_back(&node.card, &node.host, function, None).await;
    node.card.release(id, &nobody);
    back
}
