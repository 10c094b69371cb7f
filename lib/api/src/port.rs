//! The facts about a logical port that ride on its row's external_ids.
//!
//! cni-controller writes them on the northbound Logical_Switch_Port, northd copies them to the
//! southbound Port_Binding, cni-node trusts them and nothing else of that row (a chassis may write
//! `options`). A row that is forged or half written is an error with a sentence, never a panic and
//! never a guess.

mod row;

use crate::Mac;
use crate::names::{PRIMARY_IFNAME, marker};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Key of a pod port's `<namespace>/<name>`.
pub const TAG_POD: &str = "pod";
/// Key of a pod port's pod UID.
pub const TAG_UID: &str = "uid";
/// Key of a pod port's interface name.
pub const TAG_IFNAME: &str = "ifname";
/// Key of the name of the pod, in the same namespace, that a migrating VM's port is coming to.
pub const TAG_TARGET: &str = "target";
/// Key of that pod's UID.
pub const TAG_TARGET_UID: &str = "target-uid";
/// Key of the port's role: `pod` or `node`.
pub const TAG_ROLE: &str = "role";
/// Key of the Kubernetes node behind the DPU whose chassis has the port. Not there: the port is the chassis's own.
pub const TAG_HOST: &str = "host";
const SUBNET: &str = "subnet";
const MAC: &str = "mac";
const IPS: &str = "ips";
const GATEWAYS: &str = "gateways";
const ROUTES: &str = "routes";
const MTU: &str = "mtu";
const DEFAULT_ROUTE: &str = "default-route";
const POD_CIDRS: &str = "pod-cidrs";
const SERVICE_CIDRS: &str = "service-cidrs";
const JOIN_CIDRS: &str = "join-cidrs";
const NAT_CIDRS: &str = "nat-cidrs";
const MARKER_PREFIX: &str = "node.";

/// Everything that cni-node needs to know of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFacts {
    /// Chassis names that may bind the port: one, or two while a VM migrates.
    pub chassis: BTreeSet<String>,
    /// The Kubernetes node behind the DPU: its pod's, or its own `ob0`. None: the port is on the chassis's own node.
    pub host: Option<String>,
    /// Whose port it is.
    pub role: Role,
    /// Name of the subnet (logical switch).
    pub subnet: String,
    /// The interface's MAC address.
    pub mac: Mac,
    /// The interface's addresses with the subnet's prefix length: one or two, IPv4 first.
    pub ips: Vec<IpNet>,
    /// The subnet's gateways: at most one a family, IPv4 first.
    pub gateways: Vec<IpAddr>,
    /// Further routes. The default route follows from `gateways` and is not repeated here.
    pub routes: Vec<Route>,
    /// Upper bound in bytes; none = the node's underlay decides alone.
    pub mtu: Option<u32>,
    /// Whether the gateways become default routes.
    pub default_route: bool,
}

/// Whose port it is, and what only such a port has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A pod's interface.
    Pod(PodPort),
    /// A node's `ob0`; it carries what the node must know about the cluster.
    Node(NodeFacts),
}

/// The owner of a pod's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPort {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name (not the VM's).
    pub name: String,
    /// The pod's UID as CNI_ARGS carries it.
    pub uid: String,
    /// The interface's name in the pod.
    pub ifname: String,
    /// The pod that the VM is migrating to: it has the interface too, on another chassis. None most of the time.
    pub target: Option<MigrationTarget>,
}

/// The second pod of a VM that migrates: of the first one's namespace, and with the same interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationTarget {
    /// The pod's name.
    pub name: String,
    /// The pod's UID as CNI_ARGS carries it.
    pub uid: String,
}

/// What a node cannot know by itself. Lists may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Subnets of pods in the default VPC.
    pub pod_cidrs: Vec<IpNet>,
    /// The cluster's service CIDRs.
    pub service_cidrs: Vec<IpNet>,
    /// The join subnet.
    pub join_cidrs: Vec<IpNet>,
    /// Those of `pod_cidrs` and `join_cidrs` whose traffic to the outside is masqueraded.
    pub nat_cidrs: Vec<IpNet>,
}

/// A route of a pod: destination and next hop, of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop, on the port's subnet.
    pub via: IpAddr,
}

/// Why a row's external_ids are no facts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactError {
    /// A key that must be there is not.
    #[error(
        "external_ids has no {key:?}: the row was not written by cni-controller, or by another version of it"
    )]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A key has a value that cannot be.
    #[error("external_ids:{key} = {value:?}: {why}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        why: String,
    },
}

impl PortFacts {
    /// The external_ids of the row, without the keys `outboard` and `outboard-id`.
    pub fn encode(&self) -> BTreeMap<String, String> {
        let mut ids: BTreeMap<String, String> = self
            .chassis
            .iter()
            .map(|chassis| (marker(chassis), String::new()))
            .collect();
        let mut put = |key: &str, value: String| ids.insert(key.to_owned(), value);
        match &self.role {
            Role::Pod(pod) => {
                put(TAG_ROLE, "pod".to_owned());
                put(TAG_POD, format!("{}/{}", pod.namespace, pod.name));
                put(TAG_UID, pod.uid.clone());
                put(TAG_IFNAME, pod.ifname.clone());
                if let Some(target) = &pod.target {
                    put(TAG_TARGET, target.name.clone());
                    put(TAG_TARGET_UID, target.uid.clone());
                }
            }
            Role::Node(node) => {
                put(TAG_ROLE, "node".to_owned());
                put(POD_CIDRS, join(&node.pod_cidrs));
                put(SERVICE_CIDRS, join(&node.service_cidrs));
                put(JOIN_CIDRS, join(&node.join_cidrs));
                put(NAT_CIDRS, join(&node.nat_cidrs));
            }
        }
        if let Some(host) = &self.host {
            put(TAG_HOST, host.clone());
        }
        put(SUBNET, self.subnet.clone());
        put(MAC, self.mac.to_string());
        put(IPS, join(&self.ips));
        put(GATEWAYS, join(&self.gateways));
        let routes: Vec<String> = self
            .routes
            .iter()
            .map(|route| format!("{}={}", route.dst, route.via))
            .collect();
        put(ROUTES, routes.join(" "));
        put(DEFAULT_ROUTE, self.default_route.to_string());
        if let Some(mtu) = self.mtu {
            put(MTU, mtu.to_string());
        }
        ids
    }

    /// The pod's side of the facts, if it is a pod's port.
    pub fn pod(&self) -> Option<&PodPort> {
        match &self.role {
            Role::Pod(pod) => Some(pod),
            Role::Node(_) => None,
        }
    }

    /// The node's side of the facts, if it is a node's port.
    pub fn node(&self) -> Option<&NodeFacts> {
        match &self.role {
            Role::Pod(_) => None,
            Role::Node(node) => Some(node),
        }
    }
}

impl PodPort {
    /// Whether it is the pod's first interface.
    pub fn is_primary(&self) -> bool {
        self.ifname == PRIMARY_IFNAME
    }

    /// Whether the pod with this UID is the one that the VM is migrating to.
    pub fn is_coming_to(&self, uid: &str) -> bool {
        self.target.as_ref().is_some_and(|target| target.uid == uid)
    }
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
}
