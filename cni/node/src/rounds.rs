//! When a loop of this daemon runs again, and what it tells: metrics, and a readiness check of the loop's name.
//!
//! The loops (chassis, gateway, VIPs, attachments) are level-triggered: an event only means "look again". Events that come during
//! a round are one event afterwards; a timer catches what sends none (files, some settings of the kernel) and what was missed.
//!
//! A change in the kernel may be the loop's own: the round after it finds nothing to do, and so it ends. It may also be another
//! program's that wants something else: such rounds are rationed ([`Ration`]).

use std::io;
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
use tracing::warn;

use crate::netlink::{Event, Events};

/// The longest time between two rounds.
const PERIOD: Duration = Duration::from_secs(30);
/// The first wait after a round that left a problem; doubles up to [`PERIOD`].
const RETRY: Duration = Duration::from_secs(1);
/// The pause between a change in the kernel and the round that looks at it: changes come in groups.
const PAUSE: Duration = Duration::from_millis(50);
/// How many such rounds may follow each other, and how soon there may be one more.
const BURST: u32 = 32;
const INTERVAL: Duration = Duration::from_secs(2);

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
    kernel: Family<LoopLabel, Counter>,
    flows: Counter,
}

impl Rounds {
    /// Registers `outboard_loop_rounds_total`, `outboard_loop_round_duration_seconds`, `outboard_loop_kernel_events_total` and
    /// `outboard_vip_udp_flows_forgotten_total`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let rounds = Self {
            total: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 14))
            }),
            kernel: Family::default(),
            flows: Counter::default(),
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
        registry.register(
            "outboard_loop_kernel_events",
            "Changes in the kernel, by anybody, that concerned a loop of the node",
            rounds.kernel.clone(),
        );
        registry.register(
            "outboard_vip_udp_flows_forgotten",
            "Tracked UDP flows of services that led to what is no endpoint any more",
            rounds.flows.clone(),
        );
        rounds
    }
}

#[cfg(test)]
impl Rounds {
    /// How many rounds these loops have made.
    pub(crate) fn made(&self, loops: &[&'static str]) -> u64 {
        let labels = loops.iter().flat_map(|name| {
            ["clean", "problem"].map(|outcome| Labels {
                r#loop: name,
                outcome,
            })
        });
        labels
            .map(|labels| self.total.get_or_create(&labels).get())
            .sum()
    }
}

/// Why a loop runs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Something it watches changed.
    Event,
    /// The kernel's state changed, by whomever.
    Kernel,
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
    kernel: Arc<Notify>,
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
            kernel: Arc::new(Notify::new()),
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

    /// Wakes the loop, after a pause, when one of `events` concerns it. Without events the timer does it alone.
    pub(crate) fn wake_on_kernel(
        &mut self,
        events: io::Result<Events>,
        mut concerns: impl FnMut(&Event) -> bool + Send + 'static,
    ) {
        let (name, kernel) = (self.name, Arc::clone(&self.kernel));
        let counter = self
            .rounds
            .kernel
            .get_or_create(&LoopLabel { r#loop: name });
        let counter = counter.clone();
        let mut watch = async move |events: &mut Events| -> io::Result<()> {
            let mut ration = Ration::default();
            loop {
                let event = events.next().await?;
                if !concerns(&event) {
                    continue;
                }
                counter.inc();
                tokio::time::sleep(ration.pause(Instant::now())).await;
                while let Some(event) = events.ready()? {
                    if concerns(&event) {
                        counter.inc();
                    }
                }
                kernel.notify_one();
            }
        };
        self.forwarders.spawn(async move {
            let ended = match events {
                Ok(mut events) => watch(&mut events).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                warn!(
                    "the kernel does not tell loop {name} of changes ({error}): it sees them every {} s",
                    PERIOD.as_secs()
                );
            }
        });
    }

    /// Counts tracked UDP flows that were forgotten.
    pub(crate) fn forgot_flows(&self, count: usize) {
        self.rounds
            .flows
            .inc_by(u64::try_from(count).unwrap_or(u64::MAX));
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
            () = self.kernel.notified() => Some(Why::Kernel),
            () = self.wake.notified() => Some(Why::Event),
            () = tokio::time::sleep_until(self.timer) => Some(Why::Timer),
        }
    }
}

/// Rounds for changes of the kernel: [`BURST`] in a row, then one every [`INTERVAL`].
#[derive(Debug, Default)]
struct Ration {
    /// When all that was taken is there again.
    full: Option<Instant>,
}

impl Ration {
    /// Takes one round; how long it has to wait from `now`.
    fn pause(&mut self, now: Instant) -> Duration {
        let full = self.full.map_or(now, |full| full.max(now)) + INTERVAL;
        self.full = Some(full);
        full.saturating_duration_since(now + BURST * INTERVAL)
            .max(PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_for_the_kernel_are_rationed() {
        let mut ration = Ration::default();
        let now = Instant::now();
        for _ in 0..BURST {
            assert_eq!(ration.pause(now), PAUSE);
        }
        assert_eq!(ration.pause(now), INTERVAL);
        assert_eq!(ration.pause(now + INTERVAL), INTERVAL);
        let later = now + 6 * INTERVAL;
        assert_eq!(ration.pause(later), PAUSE, "a quiet time gives some back");
        assert_eq!(ration.pause(now + 100 * INTERVAL), PAUSE);
    }

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
