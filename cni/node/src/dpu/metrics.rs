//! What is counted on a DPU of its host's ports.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    op: &'static str,
    err: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Place {
    offloaded: &'static str,
}

/// Metrics of mode dpu. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    requests: Family<Request, Histogram>,
    syncs: Histogram,
    synced: Family<Outcome, Counter>,
    flows: Family<Place, Gauge>,
    /// Ports of the host that are plugged but do not work.
    pub(super) unhealthy: Gauge,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        // 1 ms to 131 s, as of CNI requests.
        let buckets = || Histogram::new(exponential_buckets(0.001, 2.0, 18));
        let metrics = Self {
            requests: Family::new_with_constructor(buckets),
            syncs: buckets(),
            synced: Family::default(),
            flows: Family::default(),
            unhealthy: Gauge::default(),
        };
        registry.register(
            "outboard_dpu_request_duration_seconds",
            "Time of the host's requests, by operation and whether they failed",
            metrics.requests.clone(),
        );
        registry.register(
            "outboard_dpu_sync_duration_seconds",
            "Time from a full set of the host to its answer",
            metrics.syncs.clone(),
        );
        registry.register(
            "outboard_dpu_synced_attachments",
            "Attachments of full sets, by what became of them: kept, plugged, removed, failed",
            metrics.synced.clone(),
        );
        registry.register(
            "outboard_dpu_ports_unhealthy",
            "Ports of the host whose representor is gone, or that Open vSwitch has an error for",
            metrics.unhealthy.clone(),
        );
        registry.register(
            "outboard_dpu_datapath_flows",
            "Flows of Open vSwitch's datapath, by whether the card has them",
            metrics.flows.clone(),
        );
        metrics
    }

    pub(super) fn request(&self, op: &'static str, failed: bool, time: Duration) {
        let err = if failed { "true" } else { "false" };
        self.requests
            .get_or_create(&Request { op, err })
            .observe(time.as_secs_f64());
    }

    pub(super) fn sync(&self, time: Duration, outcomes: [(&'static str, usize); 4]) {
        self.syncs.observe(time.as_secs_f64());
        for (outcome, count) in outcomes {
            self.synced
                .get_or_create(&Outcome { outcome })
                .inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }

    /// `None`: it is not known how many.
    pub(super) fn flows(&self, flows: Option<super::offload::Flows>) {
        let Some(flows) = flows else {
            return self.flows.clear();
        };
        for (offloaded, count) in [
            ("true", flows.offloaded),
            ("false", flows.all.saturating_sub(flows.offloaded)),
        ] {
            self.flows
                .get_or_create(&Place { offloaded })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
