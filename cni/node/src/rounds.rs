//! When a loop of this daemon runs again, and what it tells: metrics, and a readiness check of the loop's name.
//!
//! The loops (chassis, gateway, VIPs) are level-triggered: an event only means "look again". Events that come during a round are
//! one event afterwards; a timer catches what sends none (the kernel's routes, nftables, files).

use std::sync::Arc;
use std::time::Duration;

use daemon::readiness::{Check, Readiness};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The longest time between two rounds.
const PERIOD: Duration = Duration::from_secs(30);
/// The first wait after a round that left a problem; doubles up to [`PERIOD`].
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    r#loop: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoopLabel {
    r#loop: &'static str,
}

/// Metrics of all loops of the daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Rounds {
    total: Family<Labels, Counter>,
    seconds: Family<LoopLabel, Histogram>,
}

impl Rounds {
    /// Registers `outboard_loop_rounds_total` and `outboard_loop_round_duration_seconds`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let rounds = Self {
            total: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 14))
            }),
        };
        registry.register(
            "outboard_loop_rounds",
            "Rounds of the node's loops, by outcome: clean, or problem (see /readyz and the log)",
            rounds.total.clone(),
        );
        registry.register(
            "outboard_loop_round_duration_seconds",
            "Time of one round of a loop of the node, from looking to applying",
            rounds.seconds.clone(),
        );
        rounds
    }
}

/// Why a loop runs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Something it watches changed.
    Event,
    /// Time passed: look at what sends no events, too.
    Timer,
}

/// The pace of one loop.
#[derive(Debug)]
pub(crate) struct Pace {
    name: &'static str,
    rounds: Rounds,
    stop: CancellationToken,
    wake: Arc<Notify>,
    forwarders: JoinSet<()>,
    check: Check,
    retry: Duration,
    timer: Instant,
}

impl Pace {
    /// A loop that is not ready before its first round is over.
    pub(crate) fn new(
        name: &'static str,
        rounds: &Rounds,
        readiness: &Readiness,
        stop: CancellationToken,
    ) -> Self {
        Self {
            name,
            rounds: rounds.clone(),
            stop,
            wake: Arc::new(Notify::new()),
            forwarders: JoinSet::new(),
            check: readiness.check(name, "its first round is not over yet"),
            retry: RETRY,
            timer: Instant::now(),
        }
    }

    /// Wakes the loop whenever `receiver` changes.
    pub(crate) fn wake_on<T: Send + Sync + 'static>(&mut self, mut receiver: watch::Receiver<T>) {
        let wake = Arc::clone(&self.wake);
        self.forwarders.spawn(async move {
            while receiver.changed().await.is_ok() {
                wake.notify_one();
            }
        });
    }

    /// Ends a round. `problems` are what keeps the loop's work from being done, a sentence each; none = ready.
    pub(crate) fn finish(&mut self, started: Instant, problems: &[String]) {
        let clean = problems.is_empty();
        let outcome = if clean { "clean" } else { "problem" };
        self.rounds
            .total
            .get_or_create(&Labels {
                r#loop: self.name,
                outcome,
            })
            .inc();
        self.rounds
            .seconds
            .get_or_create(&LoopLabel { r#loop: self.name })
            .observe(started.elapsed().as_secs_f64());
        // Events say nothing about how long the problem will last: only a round that was due makes the next wait longer.
        let due = started >= self.timer;
        self.timer = Instant::now() + if clean { PERIOD } else { self.retry };
        if clean {
            self.retry = RETRY;
        } else if due {
            self.retry = (self.retry * 2).min(PERIOD);
        }
        self.check.set(if clean {
            Ok(())
        } else {
            Err(problems.join("; "))
        });
    }

    /// Waits for the next round; `None` = stop.
    pub(crate) async fn next(&self) -> Option<Why> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            () = self.wake.notified() => Some(Why::Event),
            () = tokio::time::sleep_until(self.timer) => Some(Why::Timer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_problem_is_tried_again_soon_and_an_event_comes_at_once() {
        let stop = CancellationToken::new();
        let readiness = Readiness::default();
        let rounds = Rounds::register(&mut Registry::default());
        let mut pace = Pace::new("test", &rounds, &readiness, stop.clone());
        let sender = watch::Sender::new(0);
        pace.wake_on(sender.subscribe());
        assert!(!readiness.is_ready());

        pace.finish(Instant::now(), &["missing".to_owned(), "gone".to_owned()]);
        assert_eq!(
            readiness.complaints(),
            [("test", "missing; gone".to_owned())]
        );
        assert_eq!(pace.next().await, Some(Why::Timer));

        for _ in 0..10 {
            pace.finish(Instant::now(), &["missing".to_owned()]);
        }
        assert!(pace.retry <= 4 * RETRY, "events make no round rarer");

        pace.finish(Instant::now(), &[]);
        assert!(readiness.is_ready());
        sender.send_replace(1);
        assert_eq!(pace.next().await, Some(Why::Event));
        assert_eq!(pace.retry, RETRY);
        assert!(pace.timer.saturating_duration_since(Instant::now()) > PERIOD / 2);

        stop.cancel();
        assert_eq!(pace.next().await, None);
    }
}
