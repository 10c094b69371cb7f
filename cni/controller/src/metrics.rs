//! The controller's metrics. Names parallel to those of ovn-kubernetes where there is a parallel.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// `done`, `refused`, `fenced`, `unknown` or `unsent`.
    pub outcome: &'static str,
}

/// Which addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Addresses {
    /// Name of the subnet.
    pub subnet: String,
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
}

/// What is said of Dpus.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DpuState {
    /// The reason of the condition `Ready`; `Serving` if all is well.
    pub reason: &'static str,
}

/// All of them. A cheap handle.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// From a pod's creation (whole seconds) to its ports being in the northbound database.
    pub pod_creation_latency: Histogram,
    /// From the first sight of a scheduled pod to its ports being in the northbound database.
    pub pod_first_seen_lsp_created: Histogram,
    /// Time that a transaction took.
    pub transaction_duration: Histogram,
    /// Units in a transaction.
    pub transaction_units: Histogram,
    /// Transactions by outcome.
    pub transactions: Family<Outcome, Counter>,
    /// Units that cannot have their rows.
    pub blocked: Gauge,
    /// Whether this process is the one that writes.
    pub leader: Gauge,
    /// Addresses given out.
    pub addresses_used: Family<Addresses, Gauge>,
    /// Addresses left.
    pub addresses_available: Family<Addresses, Gauge>,
    /// Dpus by what is said of them.
    pub dpus: Family<DpuState, Gauge>,
    /// Hosts that no Dpu names.
    pub unpaired_hosts: Gauge,
    /// Ports of machines that are two pods', while the machines migrate.
    pub migrating: Gauge,
    /// Ports of machines that their next pods have taken over.
    pub handed_over: Counter,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let metrics = Self {
            pod_creation_latency: Histogram::new(exponential_buckets(0.25, 2.0, 12)),
            pod_first_seen_lsp_created: seconds(),
            transaction_duration: seconds(),
            transaction_units: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            transactions: Family::default(),
            blocked: Gauge::default(),
            leader: Gauge::default(),
            addresses_used: Family::default(),
            addresses_available: Family::default(),
            dpus: Family::default(),
            unpaired_hosts: Gauge::default(),
            migrating: Gauge::default(),
            handed_over: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("outboard_controller");
        registry.register(
            "pod_creation_latency_seconds",
            "From a pod's creation to its ports being in the northbound database",
            metrics.pod_creation_latency.clone(),
        );
        registry.register(
            "pod_first_seen_lsp_created_duration_seconds",
            "From the first sight of a scheduled pod to its ports being in the northbound database",
            metrics.pod_first_seen_lsp_created.clone(),
        );
        registry.register(
            "transaction_duration_seconds",
            "Time of a northbound transaction",
            metrics.transaction_duration.clone(),
        );
        registry.register(
            "transaction_units",
            "Units in a northbound transaction",
            metrics.transaction_units.clone(),
        );
        registry.register(
            "transactions",
            "Northbound transactions by outcome",
            metrics.transactions.clone(),
        );
        registry.register(
            "blocked_units",
            "Units that cannot have their rows",
            metrics.blocked.clone(),
        );
        registry.register(
            "leader",
            "Whether this process is the one that writes the northbound database",
            metrics.leader.clone(),
        );
        registry.register(
            "ipam_addresses_used",
            "Addresses given out",
            metrics.addresses_used.clone(),
        );
        registry.register(
            "ipam_addresses_available",
            "Addresses left",
            metrics.addresses_available.clone(),
        );
        registry.register(
            "dpus",
            "Dpus by the reason of their condition Ready; Serving if all is well (leader only)",
            metrics.dpus.clone(),
        );
        registry.register(
            "unpaired_hosts",
            "Nodes labelled as hosts that no Dpu names (leader only)",
            metrics.unpaired_hosts.clone(),
        );
        registry.register(
            "machine_ports_migrating",
            "Ports of virtual machines that are on two chassis, as their machines migrate (leader only)",
            metrics.migrating.clone(),
        );
        registry.register(
            "machine_ports_handed_over",
            "Ports of virtual machines that the next pods of their machines have taken over",
            metrics.handed_over.clone(),
        );
        metrics
    }
}
