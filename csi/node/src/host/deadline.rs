//! How long a caller waits: `grpc-timeout` of its request.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// For callers that say nothing.
const DEFAULT: Duration = Duration::from_secs(60);
/// More than anybody means.
const MOST: Duration = Duration::from_secs(600);
/// A call ends so much before its caller's patience, that the caller gets our sentence and not its own.
const MARGIN: Duration = Duration::from_millis(200);

/// When a call must be answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    end: Instant,
    whole: Duration,
}

impl Deadline {
    /// Of a request that came just now.
    pub(crate) fn of(metadata: &MetadataMap) -> Self {
        let asked = proto::timeout::of(metadata);
        let whole = asked.unwrap_or(DEFAULT).min(MOST);
        let whole = whole.saturating_sub(MARGIN.min(whole / 10));
        Self {
            end: Instant::now() + whole,
            whole,
        }
    }

    /// The answer must be out by then.
    pub(crate) fn end(self) -> Instant {
        self.end
    }

    /// The last moment to begin the work proper: a fifth of the time is left for it.
    pub(crate) fn last_start(self) -> Instant {
        self.end - self.whole / 5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_is_left_for_the_work_and_for_the_answer() {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", "10S".parse().unwrap());
        let deadline = Deadline::of(&metadata);
        let left = deadline.end() - Instant::now();
        assert_eq!(left, Duration::from_millis(9800));
        assert!(deadline.last_start() < deadline.end());
    }
}
