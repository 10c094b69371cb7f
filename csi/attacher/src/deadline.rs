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
    let asked = proto::timeout::of(metadata);
    let whole = asked.unwrap_or(DEFAULT).min(MOST);
    Instant::now() + whole.saturating_sub(MARGIN.min(whole / 10))
}
