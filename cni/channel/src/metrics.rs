//! What is counted.

use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::heartbeat::Heard;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    verb: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// What both sides count.
#[derive(Debug, Clone)]
struct Side {
    calls: Family<Call, Histogram>,
    sessions: Counter,
    up: Gauge,
    heard: Heard,
}

impl Side {
    fn register(
        registry: &mut Registry,
        names: [(&'static str, &'static str); 3],
        age: Age,
    ) -> Self {
        // 1 ms to 65 s.
        let buckets = || Histogram::new(exponential_buckets(0.001, 2.0, 17));
        let side = Self {
            calls: Family::new_with_constructor(buckets),
            sessions: Counter::default(),
            up: Gauge::default(),
            heard: age.heard.clone(),
        };
        let [calls, sessions, up] = names;
        registry.register(calls.0, calls.1, side.calls.clone());
        registry.register(sessions.0, sessions.1, side.sessions.clone());
        registry.register(up.0, up.1, side.up.clone());
        registry.register_collector(Box::new(age));
        side
    }

    fn call(&self, verb: &'static str, outcome: &'static str, time: Duration) {
        let call = self.calls.get_or_create(&Call { verb, outcome });
        call.observe(time.as_secs_f64());
    }
}

/// Of the host's side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HostMetrics(Side);

impl HostMetrics {
    /// Registers `outboard_channel_*`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let names = [
            (
                "outboard_channel_call_duration_seconds",
                "Time of calls to the DPU, waiting for the channel included, by verb and outcome (ok, or a reason)",
            ),
            (
                "outboard_channel_sessions",
                "Sessions with the DPU that were begun",
            ),
            (
                "outboard_channel_up",
                "1 while the DPU answers and has taken the full set",
            ),
        ];
        let age = Age {
            name: "outboard_channel_heartbeat_age_seconds",
            help: "How long ago the DPU was heard; absent without a session",
            heard: Heard::default(),
        };
        Self(Side::register(registry, names, age))
    }

    pub(crate) fn call(&self, verb: &'static str, outcome: &'static str, time: Duration) {
        self.0.call(verb, outcome, time);
    }

    pub(crate) fn session(&self) {
        self.0.sessions.inc();
    }

    pub(crate) fn up(&self, up: bool) {
        self.0.up.set(up.into());
    }

    pub(crate) fn heard(&self) -> &Heard {
        &self.0.heard
    }
}

/// Of the DPU's side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DpuMetrics {
    side: Side,
    refused: Family<Reason, Counter>,
}

impl DpuMetrics {
    /// Registers `outboard_dpu_*`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let refused = Family::<Reason, Counter>::default();
        registry.register(
            "outboard_dpu_refused",
            "Connections and calls that were refused, by reason",
            refused.clone(),
        );
        let names = [
            (
                "outboard_dpu_call_duration_seconds",
                "Time of the host's calls, by verb and outcome (ok, or a reason)",
            ),
            ("outboard_dpu_sessions", "Sessions that hosts have begun"),
            ("outboard_dpu_host_up", "1 while the host is in a session"),
        ];
        let age = Age {
            name: "outboard_dpu_heartbeat_age_seconds",
            help: "How long ago the host was heard; absent without a session",
            heard: Heard::default(),
        };
        Self {
            side: Side::register(registry, names, age),
            refused,
        }
    }

    pub(crate) fn call(&self, verb: &'static str, outcome: &'static str, time: Duration) {
        self.side.call(verb, outcome, time);
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn session(&self) {
        self.side.sessions.inc();
    }

    pub(crate) fn up(&self, up: bool) {
        self.side.up.set(up.into());
    }

    pub(crate) fn heard(&self) -> &Heard {
        &self.side.heard
    }
}

/// The age of the last heartbeat, as it is when somebody asks.
#[derive(Debug)]
struct Age {
    name: &'static str,
    help: &'static str,
    heard: Heard,
}

impl Collector for Age {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let Some(age) = self.heard.age() else {
            return Ok(());
        };
        let age = ConstGauge::new(age.as_secs_f64());
        let kind = age.metric_type();
        age.encode(encoder.encode_descriptor(self.name, self.help, None, kind)?)
    }
}
