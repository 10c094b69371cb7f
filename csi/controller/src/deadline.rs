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

/// When a call must be answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// Of a request that came just now.
    pub(crate) fn of(metadata: &MetadataMap) -> Self {
        let asked = proto::timeout::of(metadata);
        Self::within(asked.unwrap_or(DEFAULT).min(MOST))
    }

    fn within(whole: Duration) -> Self {
        Self(Instant::now() + whole.saturating_sub(MARGIN.min(whole / 10)))
    }

    /// The answer must be out by then.
    pub(crate) fn end(self) -> Instant {
        self.0
    }

    /// For a part of the work: a share of what is left, so that what comes after it has the rest.
    pub(crate) fn half(self) -> Self {
        let left = self.0.saturating_duration_since(Instant::now());
        Self(Instant::now() + left / 2)
    }

    /// As `grpc-timeout` of a call that this one makes: the other side gives up first, and says why.
    pub(crate) fn left(self) -> Duration {
        let left = self.0.saturating_duration_since(Instant::now());
        left.saturating_sub(MARGIN.min(left / 10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_is_called_gives_up_before_its_caller() {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", "10S".parse().unwrap());
        let deadline = Deadline::of(&metadata);
        assert_eq!(deadline.end() - Instant::now(), Duration::from_millis(9800));
        assert_eq!(deadline.left(), Duration::from_millis(9600));
        assert_eq!(deadline.half().left(), Duration::from_millis(4700));
    }
}
