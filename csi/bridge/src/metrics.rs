//! What is counted.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tonic::Code;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: &'static str,
    code: String,
}

/// Metrics of the calls. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    calls: Family<Call, Histogram>,
}

impl Metrics {
    /// Registers `outboard_bridge_*`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        // 0.5 ms to 131 s.
        let buckets = || Histogram::new(exponential_buckets(0.0005, 2.0, 19));
        let metrics = Metrics {
            calls: Family::new_with_constructor(buckets),
        };
        registry.register(
            "outboard_bridge_call_duration_seconds",
            "Time of calls as opi-bridge sees them, by method and gRPC code",
            metrics.calls.clone(),
        );
        metrics
    }

    /// Counts one call.
    pub(crate) fn call(&self, method: &'static str, code: Code, time: Duration) {
        let code = format!("{code:?}");
        self.calls
            .get_or_create(&Call { method, code })
            .observe(time.as_secs_f64());
    }
}
