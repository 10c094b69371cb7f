//! Keeps journal, OVS and kernel in step: removes what no attachment owns, plugs again what OVS has lost.
//!
//! observe → plan → apply, at the start, whenever the database comes back, when the link of an attachment (or, of a socket's, the
//! path of its namespace) goes away without a DEL, when the representor of a host's attachment comes back, and every half minute.
//! Operations that are under way hold their attachment's lock: their parts are left alone until they end, and are looked at again
//! then. [`plan`] is pure.

mod gone;
pub(crate) mod plan;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt as _;
use tokio::sync::watch;
use tracing::info;

use self::gone::Gone;
use self::plan::{Action, Observed, plan};
use crate::attachment::{End, is_host_link};
use crate::dpu::plugging;
use crate::error::Error;
use crate::node::{Node, UNDO};
use crate::plumb::{host_links, unplumb};
use crate::rounds::{Pace, Why};
use crate::under_way;
use crate::vhostuser::{attach as vhost, ended, order, tap, withdraw};

/// Runs until the pace says stop. `recovered` becomes true with the first round that left nothing undone.
pub(crate) async fn run(node: Arc<Node>, recovered: watch::Sender<bool>, mut pace: Pace) {
    pace.wake_on(node.vswitch.client().status());
    // The first contents come with a change, not with a change of status.
    let mut filled = node.vswitch.changed();
    let gone = Gone::follow(&mut pace, node.store.clone());
    pace.wake_on(ended::follow(node.store.clone()));
    loop {
        let started = tokio::time::Instant::now();
        let left = round(&node).await;
        node.metrics
            .attachments
            .set(i64::try_from(node.store.len()).unwrap_or(i64::MAX));
        pace.finish(started, &left.problems);
        if left.problems.is_empty() {
            recovered.send_replace(true);
        }
        let mut ends = under_way::ends(&node.locks, &left.busy);
        loop {
            let next = async {
                tokio::select! {
                    next = pace.next() => next,
                    _ = filled.changed(), if !*recovered.borrow() => Some(Why::Event),
                    Some(()) = ends.next() => Some(Why::Event),
                }
            };
            match next.await {
                None => return,
                Some(Why::Kernel) if !gone.left_something(&node).await => {}
                Some(_) => break,
            }
        }
    }
}

/// What a round could not put in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// A sentence each.
    pub(crate) problems: Vec<String>,
    /// Locks of the attachments that had an operation under way.
    pub(crate) busy: Vec<String>,
}

impl Left {
    fn problem(sentence: String) -> Self {
        Self {
            problems: vec![sentence],
            ..Self::default()
        }
    }
}

/// One round.
pub(crate) async fn round(node: &Node) -> Left {
    if let Some(error) = node.vswitch.unavailable() {
        return Left::problem(error.to_string());
    }
    let plan = match observe(node).await.map(|observed| plan(&observed)) {
        Ok(plan) => plan,
        Err(problem) => return Left::problem(problem),
    };
    let mut left = Left::default();
    for key in plan.iter().map(key).collect::<BTreeSet<_>>() {
        let Some(_alone) = node.locks.try_lock(&key) else {
            left.busy.push(key);
            continue;
        };
        // An operation may have come and gone since the first look: only what is seen under the lock counts.
        match observe(node)
            .await
            .map(|observed| self::plan::plan(&observed))
        {
            Ok(plan) => {
                for action in plan.into_iter().filter(|action| self::key(action) == key) {
                    if let Err(error) = apply(node, action).await {
                        left.problems.push(error.to_string());
                    }
                }
            }
            Err(problem) => left.problems.push(problem),
        }
    }
    left
}

pub(crate) async fn observe(node: &Node) -> Result<Observed, String> {
    let links = host_links(&node.host)
        .await
        .map_err(|error| error.to_string())?;
    let said = |error: Error| error.to_string();
    // Before the records: an ADD writes its record while its mount is claimed.
    let mounts = order::mounts(node).await.map_err(said)?;
    let records = node.store.all();
    let sockets = order::observe(node, mounts, &records).await.map_err(said)?;
    let representors = plugging::representors(node, &records)
        .await
        .map_err(|error| error.to_string())?;
    Ok(Observed {
        records,
        ports: node.vswitch.ports(),
        links,
        sockets,
        representors,
    })
}

/// The attachment's lock that an action needs.
fn key(action: &Action) -> String {
    match action {
        Action::RemovePort(port) => port.id.host_link(),
        Action::Plug(record) | Action::SetUp(record) => record.id.host_link(),
        Action::RemoveLink(name) => name.clone(),
        Action::Mount(_) | Action::Unmount(_) => order::key(),
        Action::Forget(id) => id.host_link(),
    }
}

async fn apply(node: &Node, action: Action) -> Result<(), Error> {
    let deadline = tokio::time::Instant::now() + UNDO;
    match action {
        Action::RemovePort(port) => {
            info!(
                port = port.name,
                iface_id = port.iface_id,
                sandbox = port.id.container,
                "removing a port that no attachment owns"
            );
            if is_host_link(&port.name) {
                node.vswitch
                    .remove(std::slice::from_ref(&port), deadline)
                    .await
            } else {
                plugging::remove(node, &port, deadline).await
            }
        }
        Action::Plug(record) => {
            info!(pod = %record.pod, sandbox = record.id.container, ifname = record.id.ifname, "plugging a port that Open vSwitch has lost");
            let bridge = node.vswitch.bridge(tokio::time::Instant::now()).await?;
            match &record.end {
                End::Veth | End::Tap(_) => node.vswitch.plug(bridge, &record, None, deadline).await,
                End::Representor(far) => plugging::plug(node, bridge, &record, far, deadline).await,
                End::VhostUser(_) => vhost::plug(node, bridge, &record, deadline).await,
            }
            .map(drop)
        }
        Action::SetUp(record) => {
            info!(pod = %record.pod, sandbox = record.id.container, link = record.link(), "a representor is down: it is set up");
            plugging::set_up(node, &record.link()).await
        }
        Action::RemoveLink(name) => {
            info!(link = name, "removing a link that no attachment owns");
            unplumb(&node.host, name).await
        }
        Action::Mount(record) => {
            info!(pod = %record.pod, sandbox = record.id.container, ifname = record.id.ifname, "mounting the directory of a socket again");
            order::mount(node, &record).await
        }
        Action::Unmount(name) => {
            info!(mount = name, "removing a mount that no attachment needs");
            order::unmount(node, &name).await
        }
        Action::Forget(id) => {
            info!(
                sandbox = id.container,
                ifname = id.ifname,
                "forgetting an attachment that is gone"
            );
            match node.store.get(&id) {
                Some(record) if record.socket().is_some() => withdraw::forget(node, &record).await,
                Some(record) if record.tap().is_some() => tap::withdraw(node, &record).await,
                _ => node.store.forget(&id).await,
            }
        }
    }
}
