//! Pairs of hosts and DPUs: what is said of them on the Dpu and on the host's Node.
//!
//! ```text
//!   index ──► heartbeats (which DPU lives) ──► desired (pure) ──► plan (pure) ──► apply: conditions, the Node's memory, Events
//!     ▲                                                                              │
//!     └────────────────────────────── watches ◄──────────────────────────────────────┘
//! ```
//!
//! And [`directory`] tells the API server which Dpu is whose.
//!
//! What follows of it for OVN's rows is the engine's business ([`crate::index::Place`]). Level-triggered: a plan made after the
//! watches have shown what was applied is empty.

mod apply;
pub mod desired;
pub mod directory;
pub mod heartbeat;
pub mod plan;

use crate::lease::{Candidate, Turn};
use crate::metrics::Metrics;
use crate::report::{Notice, Reports, Subject};
use crate::rows::Problem;
use crate::shared::Shared;
use api::names::{DPU_DIRECTORY, SYSTEM_NAMESPACE};
use apply::apply;
use desired::{Desired, desired};
use directory::Directory;
use heartbeat::Heartbeats;
use jiff::Timestamp;
use kube::Client;
use plan::{Action, plan};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Changes are collected this long: each DPU's heartbeat is one.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// After a refusal.
const RETRY: Duration = Duration::from_secs(5);
/// Everything is looked at again after this, whatever happens.
const RESYNC: Duration = Duration::from_secs(60);
/// A DPU whose heartbeat has stood still for so long is lost.
pub const PATIENCE: Duration = Duration::from_secs(api::dpu::HEARTBEAT_LOST_SECONDS);

/// What the loop is made of.
#[derive(Clone)]
pub struct Parts {
    /// Where it is said.
    pub client: Client,
    /// What Kubernetes says.
    pub shared: Arc<Shared>,
    /// Events.
    pub reports: Reports,
    /// To machines.
    pub metrics: Metrics,
    /// Whose turn it is to be.
    pub candidate: Candidate,
    /// [`PATIENCE`], but in tests.
    pub patience: Duration,
}

/// Keeps what is said right until the token is cancelled, while it is this process's turn.
pub async fn run(parts: Parts, mut turn: watch::Receiver<Turn>, stop: CancellationToken) {
    let mut heartbeats = Heartbeats::new(parts.patience);
    let mut directory = Directory::default();
    loop {
        let may = async {
            let _ = turn
                .wait_for(|turn| parts.candidate.is_current(*turn))
                .await;
            let _ = parts.shared.unlisted().wait_for(BTreeSet::is_empty).await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = may => {}
        }
        let pause = round(&parts, &mut heartbeats, &mut directory, || {
            parts.candidate.is_current(*turn.borrow())
        })
        .await;
        let next = heartbeats.next().unwrap_or(Instant::now() + RESYNC);
        let mut lost = turn.clone();
        tokio::select! {
            () = stop.cancelled() => return,
            () = async {
                parts.shared.pairs_changed().await;
                tokio::time::sleep(DEBOUNCE.max(pause.min(RETRY))).await;
            } => {}
            () = tokio::time::sleep_until(next) => {}
            () = tokio::time::sleep(if pause.is_zero() { RESYNC } else { pause }) => {}
            _ = lost.wait_for(Option::is_none) => {
                // The next leader's numbers count.
                parts.metrics.dpus.clear();
                parts.metrics.unpaired_hosts.set(0);
                directory.forget();
            }
        }
    }
}

/// One look and what follows from it. How long to wait before it is tried again; zero if all was done.
async fn round(
    parts: &Parts,
    heartbeats: &mut Heartbeats,
    directory: &mut Directory,
    is_turn: impl Fn() -> bool,
) -> Duration {
    let (desired, actions, entries) = parts.shared.read(|index| {
        let now = Instant::now();
        heartbeats.observe(index, now, Timestamp::now());
        let desired = desired(index, &heartbeats.pulses(now));
        let actions = plan(index, &desired, Timestamp::now());
        (desired, actions, directory::entries(index))
    });
    measure(&parts.metrics, &desired);
    let mut pause = Duration::ZERO;
    if is_turn()
        && let Err(error) = directory.write(&parts.client, entries, RESYNC).await
    {
        let error = anyhow::Error::from(error);
        tracing::warn!(
            "ConfigMap {SYSTEM_NAMESPACE}/{DPU_DIRECTORY} was not written, so that new DPUs' Events are refused; it is tried again (apply manifests/base if it is not there): {error:#}"
        );
        pause = RETRY;
    }
    for action in actions {
        if !is_turn() {
            return DEBOUNCE;
        }
        if let Err(error) = apply(&parts.client, &action).await {
            let error = anyhow::Error::from(error);
            tracing::warn!("{action} was not taken and is tried again: {error:#}");
            pause = RETRY;
            continue;
        }
        tracing::info!("{action}");
        if let Action::Dpu {
            name, uid, news, ..
        } = action
        {
            for problem in news {
                parts.reports.notice(Notice {
                    about: Subject::Dpu(name.clone()),
                    uid: uid.clone(),
                    problem: Problem::new(problem.reason, problem.sentence),
                });
            }
        }
    }
    pause
}

fn measure(metrics: &Metrics, desired: &Desired) {
    metrics.dpus.clear();
    for says in desired.dpus.values() {
        let labels = crate::metrics::DpuState {
            reason: says.ready.reason,
        };
        metrics.dpus.get_or_create(&labels).inc();
    }
    let unpaired = desired.nodes.values().filter(|node| node.is_unpaired());
    let unpaired = i64::try_from(unpaired.count()).unwrap_or(i64::MAX);
    metrics.unpaired_hosts.set(unpaired);
}

#[cfg(test)]
mod tests;
