//! What is counted of CNI operations, in names parallel to those of ovn-kubernetes.

use std::time::Duration;

use cni_bin::wire::Command;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::stages::Stages;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    command: &'static str,
    err: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    command: &'static str,
    stage: &'static str,
}

/// Metrics of CNI operations. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    requests: Family<Request, Histogram>,
    stages: Family<Stage, Histogram>,
    /// Attachments in the journal.
    pub(crate) attachments: Gauge,
}

impl Metrics {
    /// Registers `outboard_cni_request_duration_seconds`, `outboard_cni_stage_duration_seconds`, `outboard_cni_attachments`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        // 1 ms to 131 s: from below OVN's floor to above kubelet's patience.
        let buckets = || Histogram::new(exponential_buckets(0.001, 2.0, 18));
        let metrics = Self {
            requests: Family::new_with_constructor(buckets),
            stages: Family::new_with_constructor(buckets),
            attachments: Gauge::default(),
        };
        registry.register(
            "outboard_cni_request_duration_seconds",
            "Time of CNI requests as cni-node sees them, by verb and whether they failed",
            metrics.requests.clone(),
        );
        registry.register(
            "outboard_cni_stage_duration_seconds",
            "Time of the stages of CNI requests (wait_row, netns, ovs, ovn_installed, journal); stages overlap",
            metrics.stages.clone(),
        );
        registry.register(
            "outboard_cni_attachments",
            "Attachments in the journal when it was last compared with OVS and the kernel",
            metrics.attachments.clone(),
        );
        metrics
    }

    /// Counts one request.
    pub(crate) fn request(&self, command: Command, failed: bool, time: Duration, stages: &Stages) {
        let command = command.as_str();
        let err = if failed { "true" } else { "false" };
        self.requests
            .get_or_create(&Request { command, err })
            .observe(time.as_secs_f64());
        for (stage, time) in stages.iter() {
            self.stages
                .get_or_create(&Stage { command, stage })
                .observe(time.as_secs_f64());
        }
    }
}
