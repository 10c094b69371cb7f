//! What is counted.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use proto::attacher::v1::State;
use tonic::Code;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Work {
    call: &'static str,
    code: String,
}

/// Metrics of the attacher. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    attachments: Family<InState, Gauge>,
    work: Family<Work, Histogram>,
    /// Callers that were given the answer of a call under way.
    pub(crate) joined: Counter,
    /// Callers that were not answered in time; the work went on.
    pub(crate) late: Counter,
    /// Connections to the card's service that ended.
    pub(crate) disconnects: Counter,
    /// Objects on the card without a record that could not be removed.
    pub(crate) orphans: Gauge,
}

impl Metrics {
    /// Registers `outboard_attacher_*`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        // 1 ms to 65 s.
        let buckets = || Histogram::new(exponential_buckets(0.001, 2.0, 17));
        let metrics = Metrics {
            attachments: Family::default(),
            work: Family::new_with_constructor(buckets),
            joined: Counter::default(),
            late: Counter::default(),
            disconnects: Counter::default(),
            orphans: Gauge::default(),
        };
        registry.register(
            "outboard_attacher_attachments",
            "Attachments by state",
            metrics.attachments.clone(),
        );
        registry.register(
            "outboard_attacher_work_duration_seconds",
            "Time of the work of attach, detach, resize and repair, by its outcome",
            metrics.work.clone(),
        );
        registry.register(
            "outboard_attacher_joined_calls",
            "Calls that were given the answer of an equal one under way",
            metrics.joined.clone(),
        );
        registry.register(
            "outboard_attacher_late_calls",
            "Calls whose deadline passed while the work went on",
            metrics.late.clone(),
        );
        registry.register(
            "outboard_attacher_card_disconnects",
            "Ends of the connection to the card's service",
            metrics.disconnects.clone(),
        );
        registry.register(
            "outboard_attacher_orphans",
            "Objects on the card that belong to no attachment and can't be removed because a host uses them",
            metrics.orphans.clone(),
        );
        metrics
    }

    /// An attachment went from one state to another.
    pub(crate) fn moved(&self, from: Option<State>, to: Option<State>) {
        let gauge = |state: State| {
            let name = state.as_str_name();
            let state = name.strip_prefix("STATE_").unwrap_or(name);
            self.attachments.get_or_create_owned(&InState { state })
        };
        if let Some(from) = from {
            gauge(from).dec();
        }
        if let Some(to) = to {
            gauge(to).inc();
        }
    }

    /// Some work is done.
    pub(crate) fn done(&self, call: &'static str, code: Code, time: Duration) {
        let work = Work {
            call,
            code: format!("{code:?}"),
        };
        self.work.get_or_create(&work).observe(time.as_secs_f64());
    }
}
