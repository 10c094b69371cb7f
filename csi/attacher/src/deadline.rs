//! How long a caller waits: `grpc-timeout` of its request.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// For callers that say nothing.
const DEFAULT: Duration = Duration::from_secs(60);
/// More than anybody means.
const MOST: Duration = Duration::from_secs(600);
/// A call ends so much before its caller's patience that the caller gets our sentence and not its own.
const MARGIN: Duration = Duration::from_millis(200);

/// When a request that came just now must be answered.
pub(crate) fn of(metadata: &MetadataMap) -> Instant {
    let asked = metadata
        .get("grpc-timeout")
        .and_then(|value| parse(value.to_str().ok()?));
    let whole = asked.unwrap_or(DEFAULT).min(MOST);
    Instant::now() + whole.saturating_sub(MARGIN.min(whole / 10))
}

/// "gRPC over HTTP2", Timeout: at most eight digits and a unit.
fn parse(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let number: u64 = (digits.len() <= 8).then(|| digits.parse().ok())??;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse("119997m"), Some(Duration::from_millis(119_997)));
        assert_eq!(parse("2M"), Some(Duration::from_secs(120)));
        for bad in ["", "m", "1", "1x", "123456789S", "-1S", "é"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
