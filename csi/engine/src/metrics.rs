//! What is counted.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::wire::State;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: &'static str,
    err: &'static str,
}

/// Metrics of the engine. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    daemons: Family<InState, Gauge>,
    requests: Family<Request, Histogram>,
    /// From the launch to the end of the recipe.
    pub(crate) starts: Histogram,
    /// Starts that failed.
    pub(crate) failures: Counter,
    /// Daemons that ended unasked.
    pub(crate) deaths: Counter,
    /// Daemons of an earlier engine that were found.
    pub(crate) found: Counter,
}

impl Metrics {
    /// Registers `outboard_engine_*`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        // 1 ms to 65 s.
        let buckets = || Histogram::new(exponential_buckets(0.001, 2.0, 17));
        let metrics = Metrics {
            daemons: Family::default(),
            requests: Family::new_with_constructor(buckets),
            starts: buckets(),
            failures: Counter::default(),
            deaths: Counter::default(),
            found: Counter::default(),
        };
        registry.register(
            "outboard_engine_daemons",
            "Storage daemons by state",
            metrics.daemons.clone(),
        );
        registry.register(
            "outboard_engine_request_duration_seconds",
            "Time of requests, by method and whether they were refused; a put includes the start it waits for",
            metrics.requests.clone(),
        );
        registry.register(
            "outboard_engine_start_duration_seconds",
            "Time from the launch of a storage daemon to the end of its recipe",
            metrics.starts.clone(),
        );
        registry.register(
            "outboard_engine_start_failures",
            "Starts of storage daemons that failed",
            metrics.failures.clone(),
        );
        registry.register(
            "outboard_engine_deaths",
            "Storage daemons that ended unasked",
            metrics.deaths.clone(),
        );
        registry.register(
            "outboard_engine_found",
            "Running storage daemons that this engine found when it started",
            metrics.found.clone(),
        );
        metrics
    }

    /// A daemon went from one state to another.
    pub(crate) fn moved(&self, from: Option<&State>, to: &State) {
        let label = |state: &State| match state {
            State::Starting => Some("starting"),
            State::Running => Some("running"),
            State::Failed { .. } => Some("failed"),
            State::Stopped => None,
        };
        if let Some(state) = from.and_then(label) {
            self.daemons.get_or_create(&InState { state }).dec();
        }
        if let Some(state) = label(to) {
            self.daemons.get_or_create(&InState { state }).inc();
        }
    }

    /// A request was answered.
    pub(crate) fn request(&self, method: &'static str, refused: bool, time: Duration) {
        let err = if refused { "true" } else { "false" };
        let request = Request { method, err };
        self.requests
            .get_or_create(&request)
            .observe(time.as_secs_f64());
    }
}
