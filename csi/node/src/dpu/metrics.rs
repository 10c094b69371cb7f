//! What is counted, and logged, of calls.

use daemon::calls::Calls;
use prometheus_client::registry::Registry;
use tonic::{Code, Response, Status};

/// Metrics of csi-node-dpu. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Calls);

impl Metrics {
    /// Registers `outboard_csi_node_dpu_*`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        Self(Calls::register(registry, "csi_node_dpu"))
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
        self.0.count(
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
}
