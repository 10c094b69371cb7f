//! How long a caller waits, and by when it is answered: the header `grpc-timeout` of its request.

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
pub struct Deadline {
    end: Instant,
    whole: Duration,
}

impl Deadline {
    /// Of a request that came just now. One that says nothing has a minute, none has more than ten.
    pub fn of(metadata: &MetadataMap) -> Self {
        let asked = timeout(metadata);
        let whole = asked.unwrap_or(DEFAULT).min(MOST);
        let whole = whole.saturating_sub(MARGIN.min(whole / 10));
        Self {
            end: Instant::now() + whole,
            whole,
        }
    }

    /// The answer must be out by then: a little before the caller gives up, so that it gets our sentence.
    pub fn end(self) -> Instant {
        self.end
    }

    /// For a part of the work: half of what is left, so that what comes after it has the rest.
    pub fn half(self) -> Self {
        let half = self.end.saturating_duration_since(Instant::now()) / 2;
        Self {
            end: Instant::now() + half,
            whole: half,
        }
    }

    /// As `grpc-timeout` of a call that this one makes: the other side gives up first, and says why.
    pub fn left(self) -> Duration {
        let left = self.end.saturating_duration_since(Instant::now());
        left.saturating_sub(MARGIN.min(left / 10))
    }

    /// The last moment to begin the work proper: a fifth of the time is left for it.
    pub fn last_start(self) -> Instant {
        self.end - self.whole / 5
    }
}

/// The header itself; none for callers that say nothing, or nothing that can be read.
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    parse(metadata.get("grpc-timeout")?.to_str().ok()?)
}

/// "gRPC over HTTP2", Timeout: at most eight digits and a unit.
fn parse(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let plain = digits.len() <= 8 && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = plain.then(|| digits.parse().ok())??;
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

    #[tokio::test(start_paused = true)]
    async fn whoever_is_called_gives_up_before_its_caller() {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", "10S".parse().unwrap());
        let deadline = Deadline::of(&metadata);
        assert_eq!(deadline.end() - Instant::now(), Duration::from_millis(9800));
        assert_eq!(deadline.left(), Duration::from_millis(9600));
        assert_eq!(deadline.half().left(), Duration::from_millis(4700));
        assert!(deadline.last_start() < deadline.end());
        metadata.insert("grpc-timeout", "99999999H".parse().unwrap());
        let longest = Deadline::of(&metadata).end() - Instant::now();
        assert_eq!(longest, MOST - MARGIN);
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse("119997m"), Some(Duration::from_millis(119_997)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("15S"), Some(Duration::from_secs(15)));
        assert_eq!(parse("2M"), Some(Duration::from_secs(120)));
        assert_eq!(parse("1H"), Some(Duration::from_secs(3600)));
        for bad in [
            "",
            "m",
            "S",
            "1",
            "1x",
            "5x",
            "123456789S",
            "-1S",
            "+1S",
            "é",
            "5é",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
