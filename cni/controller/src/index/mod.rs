//! The Kubernetes objects that matter, in memory: synchronous, compact, no input or output.
//!
//! Watchers put objects in and learn which units that makes dirty (`change.rs`); the units' pure
//! functions read. Only the fields that decide something are kept: 100,000 pods must be fine.

mod change;
mod dpu;
mod kinds;
mod machine;
mod nad;
mod node;
mod pod;
mod service;
mod subnet;

pub use change::Dirty;
pub(crate) use dpu::unpaired;
pub use dpu::{DpuEntry, Pair, Place};
pub use kinds::Indexed;
pub use machine::MigrationEntry;
pub use nad::NadEntry;
pub use node::{NodeEntry, Said};
pub use pod::{PodEntry, Reports, Requests};
pub use service::{EndpointEntry, Protocol, ServiceEntry, ServicePortEntry, SliceEntry};
pub use subnet::{SubnetEntry, VpcEntry, egress_hop};

use crate::rows::Unit;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Namespace and name of an object.
pub type ObjectKey = (String, String);

/// What the cluster's operator says on the command line.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// CIDRs of the default subnet: one or two.
    pub pod_cidrs: Vec<IpNet>,
    /// CIDRs of the join subnet: one or two.
    pub join_cidrs: Vec<IpNet>,
    /// The API server's `--service-cluster-ip-range`.
    pub service_cidrs: Vec<IpNet>,
    /// Whether what pods report of their addresses is kept (disaster path).
    pub keep_reports: bool,
}

/// Everything that is known of Kubernetes.
#[derive(Debug, Default)]
pub struct Index {
    /// From the command line.
    pub settings: Settings,
    /// By name.
    pub vpcs: BTreeMap<String, VpcEntry>,
    /// By name; a Subnet that is being deleted is still there.
    pub subnets: BTreeMap<String, SubnetEntry>,
    /// By name.
    pub nodes: BTreeMap<String, NodeEntry>,
    /// By name.
    pub dpus: BTreeMap<String, DpuEntry>,
    /// Those of `dpus` that count, by host.
    pairs: BTreeMap<String, Pair>,
    /// Definitions that are ours, or look so and are broken. By namespace and name.
    pub nads: BTreeMap<ObjectKey, NadEntry>,
    /// By namespace and name. Headless and ExternalName Services are not in here.
    pub services: HashMap<ObjectKey, ServiceEntry>,
    /// EndpointSlices by the namespace and name of their Service, then by their own name.
    pub slices: HashMap<ObjectKey, BTreeMap<String, SliceEntry>>,
    /// The Service of each EndpointSlice.
    slice_owner: HashMap<ObjectKey, ObjectKey>,
    /// Pods that are to have ports: scheduled, not hostNetwork, not completed.
    pub pods: HashMap<ObjectKey, PodEntry>,
    /// Those of `pods` that ask for secondary networks.
    multihomed: BTreeSet<ObjectKey>,
    /// Names of those of `pods` that run a machine, by its namespace and name.
    machines: HashMap<ObjectKey, BTreeSet<String>>,
    /// By namespace and name.
    pub migrations: BTreeMap<ObjectKey, MigrationEntry>,
}

impl Index {
    /// An empty index.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// The subnets of a VPC, by name.
    pub fn subnets_of<'a>(
        &'a self,
        vpc: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a SubnetEntry)> + 'a {
        self.subnets
            .iter()
            .filter(move |(_, subnet)| subnet.spec.vpc == vpc)
            .map(|(name, subnet)| (name.as_str(), subnet))
    }

    /// The EndpointSlices of a Service.
    pub fn slices_of(&self, service: &ObjectKey) -> impl Iterator<Item = &SliceEntry> {
        self.slices
            .get(service)
            .into_iter()
            .flat_map(|s| s.values())
    }

    /// Every unit that should have rows.
    pub fn units(&self) -> impl Iterator<Item = Unit> + '_ {
        let vpcs = self.vpcs.keys().cloned().map(Unit::Vpc);
        let subnets = self.subnets.keys().cloned().map(Unit::Subnet);
        let nodes = self.nodes.keys().cloned().map(Unit::Node);
        let services = self
            .services
            .keys()
            .map(|(ns, name)| Unit::service(ns, name));
        let pods = self.pods.keys().map(|(ns, name)| Unit::pod(ns, name));
        vpcs.chain(subnets).chain(nodes).chain(services).chain(pods)
    }

    /// Whether the unit should have rows.
    pub fn wants(&self, unit: &Unit) -> bool {
        match unit {
            Unit::Vpc(name) => self.vpcs.contains_key(name),
            Unit::Subnet(name) => self.subnets.contains_key(name),
            Unit::Node(name) => self.nodes.contains_key(name),
            Unit::Service { ns, name } => self.services.contains_key(&(ns.clone(), name.clone())),
            Unit::Pod { ns, name } => self.pods.contains_key(&(ns.clone(), name.clone())),
        }
    }
}
