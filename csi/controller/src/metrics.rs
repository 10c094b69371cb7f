//! What is counted.

use daemon::calls::Calls;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Metrics of csi-controller. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// CSI calls.
    pub(crate) calls: Calls,
    /// Hosts that were cut off at the target because their DPU did not answer.
    pub(crate) fenced: Counter,
}

impl Metrics {
    /// Registers `outboard_csi_controller_*`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            calls: Calls::register(registry, "csi_controller"),
            fenced: Counter::default(),
        };
        registry.register(
            "outboard_csi_controller_fenced",
            "Unpublished volumes whose host was cut off at the target because its csi-node-dpu did not answer",
            metrics.fenced.clone(),
        );
        metrics
    }
}
