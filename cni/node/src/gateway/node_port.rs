//! The node's own row in the southbound database: `ob0`'s addresses and what the node must know about the cluster. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::names::{GATEWAY_IFNAME, marker};
use api::{Mac, NodeFacts, PortFacts, Role, TAG_HOST, TAG_ROLE};
use ipnet::IpNet;
use ovsdb::{Condition, Uuid};

ovsdb::table! {
    /// A logical port as far as the gateway needs it.
    pub(crate) struct PortBinding in "Port_Binding" {
        logical_port: String,
        datapath: Option<Uuid>,
        external_ids: BTreeMap<String, String>,
    }
}

/// The node's port on the join subnet, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodePort {
    /// Name of the logical port: the Interface's iface-id.
    pub(crate) name: String,
    /// The join switch's datapath: a Load_Balancer that names it is one that this node's traffic meets.
    pub(crate) datapath: Option<Uuid>,
    pub(crate) mac: Mac,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) gateways: Vec<IpAddr>,
    /// Upper bound in bytes.
    pub(crate) mtu: Option<u32>,
    pub(crate) facts: NodeFacts,
}

/// Selects the row of `chassis`: markers are external_ids, which no chassis may write.
pub(crate) fn condition(chassis: &str) -> Condition {
    let wanted = [
        (marker(chassis), String::new()),
        (TAG_ROLE.to_owned(), "node".to_owned()),
    ];
    Condition::includes("external_ids", BTreeMap::from(wanted))
}

/// The one row among those that the condition lets through. A DPU's chassis also has those of hosts behind it.
///
/// # Errors
/// A sentence for the operator: there is none, there are several, or it cannot be read.
pub(crate) fn choose(rows: &[PortBinding], chassis: &str) -> Result<NodePort, String> {
    let own: Vec<&PortBinding> = rows
        .iter()
        .filter(|row| !row.external_ids.contains_key(TAG_HOST))
        .collect();
    let [row] = own[..] else {
        return Err(match &own[..] {
            [] => format!(
                "the southbound database has no port of this node ({GATEWAY_IFNAME} of chassis {chassis}): is cni-controller running, and does the Node exist?"
            ),
            many => format!(
                "the southbound database has {} ports with role=node for chassis {chassis} ({}): remove all but one Logical_Switch_Port",
                many.len(),
                many.iter()
                    .map(|row| row.logical_port.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        });
    };
    let name = row.logical_port.clone();
    let facts = PortFacts::decode(&row.external_ids).map_err(|error| {
        format!("Port_Binding {name}: {error}; cni-controller of another version?")
    })?;
    let Role::Node(node) = facts.role else {
        return Err(format!(
            "Port_Binding {name} is no node's port: its role is not \"node\""
        ));
    };
    Ok(NodePort {
        name,
        datapath: row.datapath,
        mac: facts.mac,
        addresses: facts.ips,
        gateways: facts.gateways,
        mtu: facts.mtu,
        facts: node,
    })
}

impl NodePort {
    /// The next hop on the join subnet for a destination.
    pub(crate) fn gateway_for(&self, dst: &IpNet) -> Option<IpAddr> {
        self.gateways
            .iter()
            .copied()
            .find(|gateway| gateway.is_ipv4() == dst.addr().is_ipv4())
    }

    /// Whether the node's port has IPv6.
    pub(crate) fn has_ipv6(&self) -> bool {
        self.addresses
            .iter()
            .any(|address| address.addr().is_ipv6())
    }
}
