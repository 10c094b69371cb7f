//! When a daemon is started again.

use std::time::Duration;

use tokio::time::Instant;

/// A daemon that has been up so long was sound: the next start is at once.
const SOUND: Duration = Duration::from_secs(10);
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Backoff {
    up: Option<Instant>,
    failures: u32,
}

impl Backoff {
    /// It serves.
    pub(super) fn is_up(&mut self, now: Instant) {
        self.up = Some(now);
    }

    /// How long to wait after the death of a daemon that served: not at all, unless it is one death of several.
    pub(super) fn next(&mut self, now: Instant) -> Duration {
        if self.up.take().is_some_and(|up| now - up >= SOUND) {
            self.failures = 0;
        }
        let delay = if self.failures == 0 {
            Duration::ZERO
        } else {
            self.delay()
        };
        self.failures += 1;
        delay
    }

    /// How long to wait after a start that failed.
    pub(super) fn next_after_failure(&mut self) -> Duration {
        self.failures = self.failures.max(1);
        let delay = self.delay();
        self.failures += 1;
        delay
    }

    fn delay(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        (FIRST * 2u32.pow(doublings)).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_death_costs_nothing_and_repeated_ones_more_and_more() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut delays = Vec::new();
        for _ in 0..12 {
            backoff.is_up(now);
            delays.push(backoff.next(now).as_millis());
        }
        assert_eq!(delays[..5], [0, 100, 200, 400, 800]);
        assert_eq!(delays[11], 30_000);
        backoff.is_up(now);
        now += SOUND;
        assert_eq!(backoff.next(now), Duration::ZERO);
        assert_eq!(backoff.next_after_failure(), FIRST);
        assert_eq!(backoff.next_after_failure(), FIRST * 2);
    }
}
