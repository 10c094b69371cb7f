//! What is counted.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tonic::{Code, Response, Status};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: &'static str,
    code: String,
}

/// Metrics of csi-node-dpu. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    calls: Family<Call, Histogram>,
}

impl Metrics {
    /// Registers `outboard_csi_node_dpu_*`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        // 1 ms to 65 s.
        let buckets = || Histogram::new(exponential_buckets(0.001, 2.0, 17));
        let metrics = Metrics {
            calls: Family::new_with_constructor(buckets),
        };
        registry.register(
            "outboard_csi_node_dpu_call_duration_seconds",
            "Time of calls, by method and gRPC code",
            metrics.calls.clone(),
        );
        metrics
    }

    /// Counts `answer` to `method`, about `of`, and logs what was refused.
    pub(crate) async fn counted<T>(
        &self,
        method: &'static str,
        of: &str,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<Response<T>, Status> {
        let began = std::time::Instant::now();
        let answer = answer.await;
        self.count(
            method,
            answer.as_ref().err().map_or(Code::Ok, Status::code),
            began.elapsed(),
        );
        match &answer {
            Ok(_) => tracing::debug!(method, of, "done"),
            Err(status) => {
                tracing::info!(method, of, code = ?status.code(), "refused: {}", status.message());
            }
        }
        answer.map(Response::new)
    }

    fn count(&self, method: &'static str, code: Code, time: Duration) {
        let code = format!("{code:?}");
        let call = Call { method, code };
        self.calls.get_or_create(&call).observe(time.as_secs_f64());
    }
}
