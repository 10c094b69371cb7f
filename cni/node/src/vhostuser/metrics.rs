//! What is counted of vhost-user interfaces.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Metrics of this kind. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// 1 when Open vSwitch can make such ports.
    pub(super) possible: Gauge,
    pub(super) attachments: Gauge,
    pub(super) mounts: Gauge,
    pub(super) faulty: Gauge,
    pub(super) refused: Counter,
    pub(super) taps: Gauge,
    pub(super) fallbacks: Counter,
}

impl Metrics {
    /// Registers `outboard_vhostuser_*`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "outboard_vhostuser_possible",
            "1 when Open vSwitch of this node can make vhost-user ports (userspace datapath, DPDK initialised), else 0; what is missing is in the answer to an ADD",
            metrics.possible.clone(),
        );
        registry.register(
            "outboard_vhostuser_attachments",
            "vhost-user interfaces in the journal",
            metrics.attachments.clone(),
        );
        registry.register(
            "outboard_vhostuser_mounts",
            "Short mounts through which Open vSwitch reaches pods' sockets",
            metrics.mounts.clone(),
        );
        registry.register(
            "outboard_vhostuser_faulty_ports",
            "vhost-user ports that Open vSwitch says it cannot use (column error of their Interface; see /readyz)",
            metrics.faulty.clone(),
        );
        registry.register(
            "outboard_vhostuser_refused",
            "ADDs of vhost-user interfaces that were refused because this node lacks something, or because of what lies in the pod's volume",
            metrics.refused.clone(),
        );
        registry.register(
            "outboard_vhostuser_taps",
            "Interfaces in the journal that are a tap because this node had no DPDK when they were made",
            metrics.taps.clone(),
        );
        registry.register(
            "outboard_vhostuser_fallbacks",
            "ADDs of vhost-user interfaces that made a tap, because this node has no DPDK (the log line of each says what it lacks)",
            metrics.fallbacks.clone(),
        );
        metrics
    }
}
