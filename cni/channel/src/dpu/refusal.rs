//! Who was sent away, and why: all are counted, some are told.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::metrics::DpuMetrics;

/// Of each reason one is told so often: a host that tries in a loop must not fill the log, nor the cluster with Events.
const EVERY: Duration = Duration::from_secs(60);

/// Something that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Who: the names in its certificate, or its address.
    pub peer: String,
    /// A label of the metric `outboard_dpu_refused_total`.
    pub reason: &'static str,
    /// What and why.
    pub sentence: String,
}

/// Counts and tells.
pub(crate) struct Refusals {
    metrics: DpuMetrics,
    to: broadcast::Sender<Refusal>,
    told: Mutex<HashMap<&'static str, Instant>>,
}

impl Refusals {
    pub(crate) fn new(metrics: DpuMetrics, to: broadcast::Sender<Refusal>) -> Self {
        Self {
            metrics,
            to,
            told: Mutex::default(),
        }
    }

    pub(crate) fn refuse(&self, reason: &'static str, peer: String, sentence: String) {
        self.metrics.refused(reason);
        if !self.its_turn(reason) {
            tracing::debug!(peer, reason, "refused: {sentence}");
            return;
        }
        tracing::warn!(peer, reason, "refused: {sentence}");
        // Nobody may listen.
        let _ = self.to.send(Refusal {
            peer,
            reason,
            sentence,
        });
    }

    fn its_turn(&self, reason: &'static str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let last = told.get(reason);
        let turn = last.is_none_or(|&last| now - last >= EVERY);
        if turn {
            told.insert(reason, now);
        }
        turn
    }
}
