//! A full set of the host: what it names is plugged, what it does not name goes.
//!
//! It is the host's whole truth, so it overrules what is known of attempts: a host that was booted begins at the bottom. It does
//! not wait for flows, nor for rows that are not there yet: the host says those again.

use std::collections::{BTreeMap, HashSet};

use channel::Failure;
use channel::proto::{self, Reason};
use cni_bin::code;
use futures::StreamExt as _;
use tokio::time::Instant;
use tracing::{info, warn};

use super::asked::{Asked, failure, no_function, synced};
use super::ports::HostPorts;
use super::representor::{CardFunction, Representor};
use crate::attachment::{AttachmentId, End, Record};
use crate::node::UNDO;

/// How many at a time: ovs-vswitchd takes up at once what comes while it works.
const WIDTH: usize = 64;

/// What became of one.
enum Done {
    Kept(proto::Wiring),
    Plugged(proto::Wiring),
    Failed(Failure),
}

pub(super) async fn sync(
    ports: &HostPorts,
    host: &str,
    set: Vec<proto::Attachment>,
) -> Vec<proto::SyncedAttachment> {
    let started = Instant::now();
    let asked: Vec<_> = set
        .into_iter()
        .map(|attachment| Asked::of(host, attachment))
        .collect();
    let named: HashSet<AttachmentId> = asked
        .iter()
        .filter_map(|one| Some(one.as_ref().ok()?.id.clone()))
        .collect();
    ports.claims.begin_anew(|id| named.contains(id));
    let removed = remove_others(ports, &named).await;
    let holders = holders(&asked);
    let found = ports.find(holders.keys().copied().collect()).await;
    let each = asked.into_iter().map(|one| async {
        match one {
            Err((key, failure)) => (key, Done::Failed(failure)),
            Ok(one) if holders.get(&one.function) != Some(&one.attempt) => {
                let failure = taken(&one);
                (one.key, Done::Failed(failure))
            }
            Ok(one) => {
                let done = match found.get(&one.function).cloned() {
                    Some(representor) => one_of_set(ports, &one, representor).await,
                    None => Err(no_function(one.function, None)),
                };
                (one.key, done.unwrap_or_else(Done::Failed))
            }
        }
    });
    let done: Vec<_> = futures::stream::iter(each).buffered(WIDTH).collect().await;
    let count = |which: fn(&Done) -> bool| done.iter().filter(|(_, done)| which(done)).count();
    let kept = count(|done| matches!(done, Done::Kept(_)));
    let plugged = count(|done| matches!(done, Done::Plugged(_)));
    let failed = count(|done| matches!(done, Done::Failed(_)));
    let time = started.elapsed();
    let outcomes = [
        ("kept", kept),
        ("plugged", plugged),
        ("removed", removed),
        ("failed", failed),
    ];
    ports.metrics.sync(time, outcomes);
    let (attachments, ms) = (done.len(), time.as_secs_f64() * 1e3);
    info!(
        host,
        attachments,
        plugged,
        kept,
        removed,
        failed,
        ms = format!("{ms:.1}"),
        "full set of the host is answered"
    );
    done.into_iter()
        .map(|(key, done)| match done {
            Done::Kept(wiring) | Done::Plugged(wiring) => synced(key, Ok(wiring)),
            Done::Failed(failure) => synced(key, Err(failure)),
        })
        .collect()
}

/// Of two members with one function the later attempt has it.
fn holders<E>(asked: &[Result<Asked, E>]) -> BTreeMap<CardFunction, u64> {
    let mut holders: BTreeMap<CardFunction, u64> = BTreeMap::new();
    for one in asked.iter().flatten() {
        let holder = holders.entry(one.function).or_default();
        *holder = one.attempt.max(*holder);
    }
    holders
}

fn taken(asked: &Asked) -> Failure {
    Failure::new(
        Reason::FunctionTaken,
        code::TRY_AGAIN_LATER,
        format!(
            "Function {} is claimed by a later attachment of the same set.",
            asked.function
        ),
        "Recreate the pod; look at the log of cni-node on the host.",
    )
}

/// Removes the hosts' attachments that the set does not name: the card has one host. What is under way came after the set was made.
async fn remove_others(ports: &HostPorts, named: &HashSet<AttachmentId>) -> usize {
    let others: Vec<Record> = ports
        .node
        .store
        .all()
        .into_iter()
        .filter(|record| record.far().is_some() && !named.contains(&record.id))
        .filter(|record| !ports.claims.is_active(&record.id))
        .collect();
    let each = others.into_iter().map(|record| async move {
        let id = &record.id;
        let _alone = ports.node.locks.lock(&id.host_link()).await;
        if ports.node.store.get(id).as_ref() != Some(&record) {
            return 0;
        }
        info!(pod = %record.pod, sandbox = id.container, ifname = id.ifname, "the host no longer has it: its port is removed");
        match ports.remove(id, Instant::now() + UNDO).await {
            Ok(()) => 1,
            Err(failure) => {
                warn!(
                    sandbox = id.container,
                    ifname = id.ifname,
                    "it is removed with the next set: {failure}"
                );
                0
            }
        }
    });
    let each = futures::stream::iter(each).buffer_unordered(WIDTH);
    each.fold(0, |sum, one| async move { sum + one }).await
}

async fn one_of_set(
    ports: &HostPorts,
    asked: &Asked,
    representor: Result<Representor, Failure>,
) -> Result<Done, Failure> {
    let (id, attempt) = (&asked.id, asked.attempt);
    let (_taken, displaced) = ports.claims.take_of_set(id, attempt, asked.function);
    for other in &displaced {
        ports.evict(other).await?;
    }
    let _alone = ports.node.locks.lock(&id.host_link()).await;
    let prepared = ports.prepare(asked, representor?, Instant::now()).await?;
    let record = &prepared.record;
    let there = ports.node.store.get(id);
    let kept = there.as_ref().is_some_and(|there| same_port(there, record));
    let unwritable = |error| failure(Reason::Unspecified, error);
    if kept && ports.plugged(record).is_some() {
        if there.as_ref() != Some(record) {
            let replaced = ports.node.store.replace(record.clone()).await;
            replaced.map_err(unwritable)?;
        }
        return Ok(Done::Kept(prepared.wiring));
    }
    if there.is_some() {
        ports.remove(id, Instant::now() + UNDO).await?;
    }
    let plugged = async {
        ports.plug(&prepared, Instant::now() + UNDO).await?;
        let kept = ports.node.store.insert(record.clone()).await;
        kept.map_err(unwritable)
    };
    match plugged.await {
        Ok(()) => Ok(Done::Plugged(prepared.wiring)),
        Err(failure) => {
            ports.undo(id).await;
            Err(failure)
        }
    }
}

/// Whether two records differ by nothing but the host's count.
fn same_port(one: &Record, other: &Record) -> bool {
    let mut one = one.clone();
    one.ordinal = other.ordinal;
    if let (End::Representor(mine), Some(theirs)) = (&mut one.end, other.far()) {
        mine.attempt = theirs.attempt;
    }
    one == *other
}
