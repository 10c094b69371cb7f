//! How long gRPC calls take, as their server sees it, by method and code.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;
use tonic::Code;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: &'static str,
    code: &'static str,
}

/// The histogram of a program's calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Calls(Family<Call, Histogram>);

impl Calls {
    /// Registers `outboard_<program>_call_duration_seconds`, `program` in snake case.
    pub fn register(registry: &mut Registry, program: &str) -> Self {
        // 0.5 ms to 131 s: from a repeated call to above kubelet's and the sidecars' patience.
        let buckets = || Histogram::new(exponential_buckets(0.0005, 2.0, 19));
        let calls = Family::new_with_constructor(buckets as fn() -> Histogram);
        registry.register(
            format!("outboard_{program}_call_duration_seconds"),
            "Time of calls as the program that serves them sees it, by method and gRPC code",
            calls.clone(),
        );
        Self(calls)
    }

    /// Counts one call.
    pub fn count(&self, method: &'static str, code: Code, time: Duration) {
        let code = name(code);
        let call = self.0.get_or_create(&Call { method, code });
        call.observe(time.as_secs_f64());
    }
}

/// The code as gRPC's list of status codes, and the CSI specification, spell it.
pub fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn a_call_is_counted_by_method_and_code() {
        let mut registry = Registry::default();
        let calls = Calls::register(&mut registry, "csi_node");
        calls.count("NodeStageVolume", Code::Ok, Duration::from_millis(3));
        calls.count("NodeStageVolume", Code::NotFound, Duration::from_secs(200));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            r#"outboard_csi_node_call_duration_seconds_count{method="NodeStageVolume",code="OK"} 1"#,
            r#"outboard_csi_node_call_duration_seconds_sum{method="NodeStageVolume",code="NOT_FOUND"} 200.0"#,
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
