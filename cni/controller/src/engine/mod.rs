//! The loop that keeps the northbound database as it should be.
//!
//! ```text
//!   standby ──Lease held, lists complete, NB synced──► claim ──► load ──► ┌► gather ─► prepare ─► commit ┐
//!      ▲                                                 ▲                └──────────────────────────────┘
//!      └── Lease lost, or fenced off by another ─────────┴── mark gone (NB emptied) ──────────┘
//! ```
//!
//! Keyed and level-triggered: what is dirty is a set of units; a unit is always planned as a whole,
//! against what the database has at that moment.

mod commit;
mod gather;
mod load;
mod machine;
mod prepare;
mod rebuild;
mod report;

use crate::chassis::Chassis;
use crate::fence::{ClaimError, Fence};
use crate::ipam::Ports;
use crate::lease::Turn;
use crate::metrics::Metrics;
use crate::nb;
use crate::observed::Observed;
use crate::published::Published;
use crate::report::Reports;
use crate::rows::{Problem, Unit};
use crate::shared::Shared;
use daemon::readiness::{Check, Readiness};
use gather::Queue;
use ovsdb::{Change, Client, Replica};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Pause after the database did not take the owner's mark.
const CLAIM_PAUSE: Duration = Duration::from_secs(1);

/// What the engine is made of.
#[derive(Debug)]
pub struct Parts {
    /// What Kubernetes says.
    pub shared: Arc<Shared>,
    /// The northbound database.
    pub nb: Client,
    /// Removes the chassis of removed nodes.
    pub chassis: Option<Chassis>,
    /// Name of this process, unlike that of any other one before or after it.
    pub identity: String,
    /// To people.
    pub reports: Reports,
    /// To machines.
    pub metrics: Metrics,
    /// To probes.
    pub readiness: Readiness,
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
    nb: Client,
    replica: Replica,
    changes: UnboundedReceiver<Change>,
    pub(crate) chassis: Option<Chassis>,
    identity: String,
    reports: Reports,
    metrics: Metrics,
    checks: Checks,
    pub(crate) observed: Observed,
    ports: Ports,
    /// What nodes say of interfaces, with `--rebuild`.
    published: Published,
    fence: Option<Fence>,
    queue: Queue,
    blocked: HashMap<Unit, Vec<Problem>>,
    /// When a pod that has no ports yet was first seen.
    seen: HashMap<Unit, Instant>,
    /// How many ports of a unit are another pod's, too.
    migrating: HashMap<Unit, usize>,
    /// Subnets whose cursors are not in the database yet.
    cursors: BTreeSet<String>,
}

#[derive(Debug)]
struct Checks {
    nb: Check,
    lists: Check,
    fence: Check,
    allocation: Check,
}

/// Why a term of leadership ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Another process has taken the database.
    Fenced,
    /// The mark is gone, or is an old one of ours: the database was emptied or put back.
    MarkGone,
}

impl Engine {
    /// Not running yet.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            shared,
            nb,
            chassis,
            identity,
            reports,
            metrics,
            readiness,
        } = parts;
        let replica = nb.monitor(nb::monitor_spec());
        let checks = Checks {
            nb: readiness.check("nb", "the northbound database has not been read yet"),
            lists: readiness.check("lists", "the API server has not answered yet"),
            fence: readiness.check("fence", "not decided yet whether this process writes"),
            allocation: readiness.check(
                "allocation",
                "the northbound database has not been read yet",
            ),
        };
        Self {
            changes: replica.subscribe(),
            shared,
            nb,
            replica,
            chassis,
            identity,
            reports,
            metrics,
            checks,
            observed: Observed::default(),
            ports: Ports::default(),
            published: Published::default(),
            fence: None,
            queue: Queue::default(),
            blocked: HashMap::new(),
            seen: HashMap::new(),
            migrating: HashMap::new(),
            cursors: BTreeSet::new(),
        }
    }

    /// Runs until the token is cancelled. It writes while it is this process's turn.
    pub async fn run(mut self, mut turn: watch::Receiver<Turn>, stop: CancellationToken) {
        let mut fenced_off: Turn = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.may_write(&mut turn, fenced_off) => {}
            }
            self.metrics.leader.set(1);
            let mut lost = turn.clone();
            let end = tokio::select! {
                () = stop.cancelled() => return,
                _ = lost.wait_for(Option::is_none) => None,
                end = self.term() => Some(end),
            };
            self.metrics.leader.set(0);
            match end {
                None => tracing::warn!("the Lease is lost: this process no longer writes"),
                Some(End::MarkGone) => {
                    tracing::error!(
                        "the owner's mark is gone from NB_Global: the northbound database was emptied or put back to an earlier state; it is written again from memory"
                    );
                }
                Some(End::Fenced) => {
                    let mark = self.observed.global_key(crate::fence::OWNER_KEY);
                    tracing::error!(
                        mark,
                        "fenced off: another cni-controller has taken the northbound database"
                    );
                    // Only if the API server says after this that it is our turn, it is.
                    fenced_off = Some(Instant::now());
                }
            }
        }
    }

    /// Returns when this process should write and knows enough to do so.
    async fn may_write(&mut self, turn: &mut watch::Receiver<Turn>, fenced_off: Turn) {
        let mut unlisted = self.shared.unlisted();
        let mut status = self.nb.status();
        let mut synced = self.replica.watch_synced();
        loop {
            let missing: Vec<&str> = unlisted.borrow_and_update().iter().copied().collect();
            self.checks.lists.set(if missing.is_empty() {
                Ok(())
            } else {
                Err(format!(
                    "not listed yet: {}; check the API server and the service account's rights",
                    missing.join(", ")
                ))
            });
            let has_nb = *synced.borrow_and_update();
            self.checks.nb.set(if has_nb {
                Ok(())
            } else {
                let error = status.borrow_and_update().last_error.clone();
                let error = error.unwrap_or_else(|| "the first read is under way".into());
                Err(format!(
                    "no northbound database: {error}; check --nb and its certificates"
                ))
            });
            let confirmed = *turn.borrow_and_update();
            let is_turn = confirmed.is_some() && confirmed > fenced_off;
            // Memory must not grow with what nobody reads; and what is known of the database while
            // pods are still being listed need not be taken in after that.
            self.observed.drain(&self.replica, &mut self.changes);
            if !is_turn {
                // A standby is as ready as it can be.
                self.checks.fence.ready();
                self.checks.allocation.ready();
                self.shared.take_dirty();
            }
            if is_turn && has_nb && missing.is_empty() {
                return;
            }
            let mut changed = self.replica.changed();
            tokio::select! {
                _ = unlisted.changed() => {}
                _ = turn.changed() => {}
                _ = synced.changed() => {}
                _ = status.changed() => {}
                _ = changed.changed() => {}
                () = self.shared.dirtied() => {}
            }
        }
    }

    /// One term: takes the database and keeps it right until that is no longer ours to do.
    async fn term(&mut self) -> End {
        self.observed.drain(&self.replica, &mut self.changes);
        let known = self
            .fence
            .as_ref()
            .is_some_and(|fence| !fence.is_lost(&self.observed));
        self.checks
            .fence
            .not_ready("taking the northbound database");
        let fence = self.claim().await;
        self.checks.fence.ready();
        self.observed.drain(&self.replica, &mut self.changes);
        if !known {
            // A term that ends before it has begun, as one may that waits for nodes, leaves nothing
            // that the next one could start from.
            self.fence = None;
        }
        self.begin(known).await;
        self.fence = Some(fence);
        loop {
            self.gather().await;
            if let Err(end) = self.work().await {
                return end;
            }
        }
    }

    async fn claim(&mut self) -> Fence {
        loop {
            match Fence::claim(&self.nb, &self.observed, &self.identity).await {
                Ok(fence) => return fence,
                Err(ClaimError::Raced) => {
                    let mut changed = self.replica.changed();
                    let pause = tokio::time::timeout(CLAIM_PAUSE, changed.changed());
                    // Either way it is looked at again.
                    let _ = pause.await;
                }
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    self.checks.fence.not_ready(format!(
                        "{error:#}; check the northbound database's servers"
                    ));
                    tokio::time::sleep(CLAIM_PAUSE).await;
                }
            }
            self.observed.drain(&self.replica, &mut self.changes);
        }
    }
}
