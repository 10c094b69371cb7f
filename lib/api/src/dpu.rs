//! The custom resource Dpu: which DPU serves which host, and how that goes.
//!
//! Who writes what of the status: the DPU's cni-node its heartbeat, what its card has, the epochs and the condition
//! [`HOST_SEEN`]; cni-controller the conditions [`PAIRED`] and [`READY`]. Both by server-side apply, each as a field manager of
//! its own, so that neither takes the other's conditions away.

#![expect(
    unreachable_pub,
    reason = "the derives write pub items into closed modules"
)]
#![allow(
    clippy::duplicated_attributes,
    reason = "columns of one type are none of each other's business"
)]

use crate::names::CHANNEL_PORT;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Type of the condition that cni-controller writes: whether this Dpu's two nodes are a pair by it.
pub const PAIRED: &str = "Paired";
/// Type of the condition that the DPU writes: whether the host has a session with it.
pub const HOST_SEEN: &str = "HostSeen";
/// Type of the condition that cni-controller writes: whether the host's pods can have their network.
pub const READY: &str = "Ready";
/// The DPU writes its heartbeat at most this often, in seconds.
pub const HEARTBEAT_SECONDS: u64 = 10;
/// A DPU whose heartbeat has stood still for so many seconds is lost.
pub const HEARTBEAT_LOST_SECONDS: u64 = 30;

/// A pair: the node that is a DPU, the node that is its host, and where they speak.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[kube(
    group = "iaas.yusur.io",
    version = "v1",
    kind = "Dpu",
    plural = "dpus",
    category = "outboard",
    status = "DpuStatus",
    derive = "PartialEq",
    selectable = ".spec.dpuNode",
    selectable = ".spec.hostNode",
    doc = "A pair: the node that is a DPU, the node that is its host, and where they speak.",
    printcolumn(name = "DPU", type_ = "string", json_path = ".spec.dpuNode"),
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.hostNode"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "HostSeen",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"HostSeen\")].status"
    ),
    printcolumn(
        name = "Functions",
        type_ = "integer",
        json_path = ".status.functions.total"
    ),
    printcolumn(name = "Free", type_ = "integer", json_path = ".status.functions.free"),
    printcolumn(
        name = "Heartbeat",
        type_ = "date",
        json_path = ".status.lastHeartbeat"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    validation = Rule::new("self.dpuNode != self.hostNode")
        .message("dpuNode and hostNode are two nodes: a node is not its own DPU")
)]
#[serde(rename_all = "camelCase")]
pub struct DpuSpec {
    /// Name of the Node that is the DPU. Cannot change: a new card is a new Dpu.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    #[x_kube(
        validation = Rule::new("self == oldSelf").message("dpuNode cannot change: delete this Dpu and make a new one; the host's pods keep their ports meanwhile"),
        validation = Rule::new("!isIP(self)").message("dpuNode must not look like an address: certificates name the DPU by it"),
    )]
    pub dpu_node: String,
    /// Name of the Node that is the host.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    #[x_kube(
        validation = Rule::new("!isIP(self)").message("hostNode must not look like an address: certificates name the host by it"),
    )]
    pub host_node: String,
    /// Address at which the host reaches the DPU's channel.
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("isIP(self)").message("address must be an IP address, as 198.18.0.12 or fd00::12"))]
    pub address: String,
    /// TCP port of the channel.
    #[serde(default = "channel_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Number of the host's controller as devlink on the DPU counts it (1 on BlueField). Without it: the only one that the card
    /// has for others, or any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 65535))]
    pub controller: Option<u32>,
}

fn channel_port() -> u16 {
    CHANNEL_PORT
}

/// How a pair is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DpuStatus {
    /// `Paired` and `Ready` are cni-controller's, `HostSeen` is the DPU's.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// When the DPU's cni-node last said that it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heartbeat: Option<Time>,
    /// What the card has for this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<Functions>,
    /// Boot and process of the host's cni-node, as the DPU last heard them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_epoch: Option<String>,
    /// Boot and process of the DPU's cni-node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpu_epoch: Option<String>,
}

/// Functions of a card that one host can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Functions {
    /// All.
    pub total: u32,
    /// Those that nothing is attached to.
    pub free: u32,
}

impl DpuSpec {
    /// A pair at the usual port.
    pub fn new(dpu_node: &str, host_node: &str, address: std::net::IpAddr) -> Self {
        Self {
            dpu_node: dpu_node.to_owned(),
            host_node: host_node.to_owned(),
            address: address.to_string(),
            port: channel_port(),
            controller: None,
        }
    }
}

/// What decides whether a Dpu counts.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The Dpu's creation, in seconds since 1970.
    pub created: i64,
    /// The Dpu's name.
    pub name: &'a str,
    /// Whom it pairs.
    pub spec: &'a DpuSpec,
}

/// Whether a Dpu counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Its nodes are a pair.
    Counts,
    /// An older Dpu has one of its nodes already.
    Beaten {
        /// The node.
        node: &'a str,
        /// Name of the older Dpu.
        by: &'a str,
    },
}

impl<'a> Claim<'a> {
    /// The claim of an object.
    pub fn of(dpu: &'a Dpu) -> Self {
        let created = dpu.metadata.creation_timestamp.as_ref();
        Self {
            created: created.map_or(i64::MAX, |time| time.0.as_second()),
            name: dpu.metadata.name.as_deref().unwrap_or_default(),
            spec: &dpu.spec,
        }
    }
}

/// Which of all Dpus count, by name: a node is in one pair at most, and the older Dpu has it. Of two that are equally old it is the
/// first by name.
pub fn standings<'a>(all: impl IntoIterator<Item = Claim<'a>>) -> BTreeMap<&'a str, Standing<'a>> {
    let ordered: BTreeMap<(i64, &str), &DpuSpec> = all
        .into_iter()
        .map(|claim| ((claim.created, claim.name), claim.spec))
        .collect();
    let mut holders: BTreeMap<&str, &str> = BTreeMap::new();
    let mut standings = BTreeMap::new();
    for ((_, name), spec) in ordered {
        let nodes = BTreeSet::from([spec.dpu_node.as_str(), spec.host_node.as_str()]);
        let taken = nodes
            .iter()
            .find_map(|node| Some((*node, *holders.get(node)?)));
        let standing = match taken {
            Some((node, by)) => Standing::Beaten { node, by },
            None => {
                holders.extend(nodes.into_iter().map(|node| (node, name)));
                Standing::Counts
            }
        };
        standings.insert(name, standing);
    }
    standings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dpu: &str, host: &str) -> DpuSpec {
        DpuSpec::new(dpu, host, std::net::Ipv4Addr::new(198, 18, 0, 1).into())
    }

    #[test]
    fn of_two_that_name_a_node_the_older_counts() {
        let specs = [
            (7, "younger", spec("d1", "h2")),
            (5, "a", spec("d1", "h1")),
            (6, "other", spec("d2", "h1")),
            // Those that are beaten hold nothing.
            (8, "free", spec("d2", "h2")),
            // A node is not a host here and a DPU there.
            (9, "both", spec("h1", "h3")),
            (5, "b", spec("d9", "d1")),
        ];
        let claims = specs.iter().map(|(created, name, spec)| Claim {
            created: *created,
            name,
            spec,
        });
        let found = standings(claims);
        let beaten = |node, by| Standing::Beaten { node, by };
        assert_eq!(found["a"], Standing::Counts);
        assert_eq!(found["free"], Standing::Counts);
        assert_eq!(found["younger"], beaten("d1", "a"));
        assert_eq!(found["other"], beaten("h1", "a"));
        assert_eq!(found["both"], beaten("h1", "a"));
        assert_eq!(found["b"], beaten("d1", "a"));
    }
}
