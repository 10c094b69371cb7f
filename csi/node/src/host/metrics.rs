//! What is counted of calls.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tonic::Code;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: &'static str,
    code: &'static str,
}

/// Metrics of CSI calls. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    calls: Family<Call, Histogram>,
}

impl Metrics {
    /// Registers `outboard_csi_node_call_duration_seconds`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        // 0.5 ms to 131 s: from a repeated call to above kubelet's patience.
        let buckets = || Histogram::new(exponential_buckets(0.0005, 2.0, 19));
        let metrics = Self {
            calls: Family::new_with_constructor(buckets),
        };
        registry.register(
            "outboard_csi_node_call_duration_seconds",
            "Time of CSI calls as csi-node-host sees them, by method and gRPC code",
            metrics.calls.clone(),
        );
        metrics
    }

    /// Counts one call.
    pub(crate) fn call(&self, method: &'static str, code: Code, time: Duration) {
        let code = name(code);
        self.calls
            .get_or_create(&Call { method, code })
            .observe(time.as_secs_f64());
    }
}

/// The code as the CSI specification spells it.
pub(crate) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unavailable => "UNAVAILABLE",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        _ => "OTHER",
    }
}
