//! What is counted of calls.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tonic::Code;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    rpc: &'static str,
    code: &'static str,
}

/// Metrics of CSI calls. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    calls: Family<Call, Histogram>,
    /// Hosts that were cut off at the target because their DPU did not answer.
    pub(crate) fenced: Counter,
}

impl Metrics {
    /// Registers `outboard_csi_controller_*`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        // 0.5 ms to 131 s: from a repeated call to above the sidecars' patience.
        let buckets = || Histogram::new(exponential_buckets(0.0005, 2.0, 19));
        let metrics = Self {
            calls: Family::new_with_constructor(buckets),
            fenced: Counter::default(),
        };
        registry.register(
            "outboard_csi_controller_call_duration_seconds",
            "Time of CSI calls as csi-controller sees them, by rpc and gRPC code",
            metrics.calls.clone(),
        );
        registry.register(
            "outboard_csi_controller_fenced",
            "Unpublished volumes whose host was cut off at the target because its csi-node-dpu did not answer",
            metrics.fenced.clone(),
        );
        metrics
    }

    /// Counts one call.
    pub(crate) fn call(&self, rpc: &'static str, code: Code, time: Duration) {
        let code = name(code);
        self.calls
            .get_or_create(&Call { rpc, code })
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
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Unavailable => "UNAVAILABLE",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        _ => "OTHER",
    }
}
