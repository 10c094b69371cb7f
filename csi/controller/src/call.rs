//! What every call has: a deadline, a span, a line in the log, a place in the metrics. The work is carried to its end
//! though the caller may have gone: it would be made again from the beginning otherwise.

use std::sync::Arc;
use std::time::Instant;

use daemon::calls;
use proto::deadline::Deadline;
use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};
use tracing::Instrument;

use crate::driver::Driver;
use crate::status::Answer;

/// Which call, about what.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The rpc's name.
    op: &'static str,
    /// Id or name of the volume, snapshot or group; may be empty.
    volume: String,
    /// The node; may be empty.
    node: String,
    /// It changes nothing: logged at level debug.
    reads: bool,
}

impl Call {
    /// One that only looks.
    pub(crate) fn reads(op: &'static str) -> Self {
        Self {
            op,
            volume: String::new(),
            node: String::new(),
            reads: true,
        }
    }

    /// One that changes something.
    pub(crate) fn changes(op: &'static str) -> Self {
        Self {
            reads: false,
            ..Self::reads(op)
        }
    }

    /// About this volume, snapshot or group.
    pub(crate) fn about(self, volume: &str) -> Self {
        Self {
            volume: short(volume),
            ..self
        }
    }

    /// At a node.
    pub(crate) fn at(self, node: &str) -> Self {
        Self {
            node: short(node),
            ..self
        }
    }

    /// Does the work until the caller's deadline, and beyond it in the background.
    pub(crate) async fn run<T, F>(
        self,
        driver: &Arc<Driver>,
        metadata: &MetadataMap,
        work: impl FnOnce(Arc<Driver>, Deadline) -> F,
    ) -> Answer<Response<T>>
    where
        T: Send + 'static,
        F: Future<Output = Answer<T>> + Send + 'static,
    {
        let begun = Instant::now();
        let deadline = Deadline::of(metadata);
        let Self {
            op,
            volume: volume_id,
            node,
            ..
        } = self;
        let span = tracing::info_span!("call", op, volume_id, node);
        let task = tokio::spawn(work(Arc::clone(driver), deadline).instrument(span.clone()));
        let answer = match tokio::time::timeout_at(deadline.end(), task).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(ended)) => Err(Status::unavailable(format!(
                "{op}: whether it was done is unknown ({ended}); call again"
            ))),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "{op} takes longer and goes on; call again"
            ))),
        };
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        driver.metrics.calls.count(op, code, begun.elapsed());
        let ms = begun.elapsed().as_millis();
        span.in_scope(|| match &answer {
            Ok(_) if self.reads => tracing::debug!(ms, "done"),
            Ok(_) => tracing::info!(ms, "done"),
            Err(status) => {
                let sentence = status.message();
                tracing::warn!(ms, code = calls::name(code), "{sentence}");
            }
        });
        answer.map(Response::new)
    }
}

/// What a stranger sent is not written to the log at any length.
fn short(text: &str) -> String {
    text.chars().take(128).collect()
}

/// A call of a service: what kind of call, its name, the fields that say what it is about and where, and the function that
/// does it.
macro_rules! call {
    ($service:ident, $request:ident, $kind:ident $op:literal [$($about:ident)?] [$($at:ident)?], $work:path) => {{
        let (metadata, _, message) = $request.into_parts();
        let call = $crate::call::Call::$kind($op)$(.about(&message.$about))?$(.at(&message.$at))?;
        let work = |driver: ::std::sync::Arc<$crate::driver::Driver>, deadline| async move {
            $work(&driver, &message, deadline).await
        };
        call.run(&$service.0, &metadata, work).await
    }};
}
pub(crate) use call;
