//! What is counted of a host besides its CNI operations and its channel.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// Metrics of the host's card. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    functions: Family<State, Gauge>,
    /// Attachments that the DPU could not plug when it was told of all.
    pub(crate) unplugged: Gauge,
}

impl Metrics {
    /// Registers `outboard_host_functions` and `outboard_host_unplugged_attachments`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            functions: Family::default(),
            unplugged: Gauge::default(),
        };
        registry.register(
            "outboard_host_functions",
            "Functions of the host's card: all, and those that a pod could get now",
            metrics.functions.clone(),
        );
        registry.register(
            "outboard_host_unplugged_attachments",
            "Attachments that the DPU had no port for when it was told of all, to be tried again",
            metrics.unplugged.clone(),
        );
        metrics
    }

    pub(crate) fn functions(&self, total: usize, free: usize) {
        for (state, count) in [("total", total), ("free", free)] {
            self.functions
                .get_or_create(&State { state })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
