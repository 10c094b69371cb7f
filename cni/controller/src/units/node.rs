//! A node's rows: the port of its `ob0` on the join switch and its pods' way out. A host's port is on its DPU's chassis.
//!
//! A process of a host reaches a Service whose endpoints are no pods through OVN: the join switch's load balancer names the endpoint,
//! the router sends the packet out by the DPU's `ob0`, the DPU's kernel masquerades it, and the answer comes back the same way. A
//! plain node can't do that (the packet would come back to the kernel that sent it): there cni-node redirects (`vip`).

use super::vpc::{join_cidrs, match_set, nat_cidrs, of_family, pod_cidrs};
use crate::index::{Index, Place, unpaired};
use crate::rows::{DesiredRow, Problem, RowId};
use api::names::{self, DEFAULT_VPC, JOIN_SUBNET};
use api::{Mac, NodeFacts, PortFacts, Role};
use ipnet::IpNet;
use ovsdb::Datum;
use std::net::IpAddr;

/// Priority of the policies that send a node's pods out by its own `ob0`.
const EGRESS_PRIORITY: i64 = 100;

/// Where the ports of the node `name` are.
pub fn place(index: &Index, name: &str) -> Result<Place, Problem> {
    let place = index.place(name);
    place.ok_or_else(|| Problem::new("NoDpu", unpaired(name)))
}

/// The rows of the node `name`, whose `ob0` has been given `mac` and `ips` (one or two, IPv4 first).
pub fn desired(
    index: &Index,
    name: &str,
    mac: Mac,
    ips: &[IpAddr],
) -> Result<Vec<DesiredRow>, Problem> {
    if !index.nodes.contains_key(name) {
        return Ok(Vec::new());
    }
    let place = place(index, name)?;
    let facts = facts(index, &place, mac, ips).ok_or_else(|| {
        let sentence = format!(
            "Node {name}: no port for it, for there is no usable Subnet {JOIN_SUBNET} with its addresses; restart cni-controller to have it made again"
        );
        Problem::new("NoJoinSubnet", sentence)
    })?;

    let port_name = names::node_port(name);
    let addresses: Vec<String> = std::iter::once(mac.to_string())
        .chain(ips.iter().map(ToString::to_string))
        .collect();
    let port = DesiredRow::new("Logical_Switch_Port", port_name.as_str())
        .set("name", port_name.as_str())
        .set("type", "")
        .set("addresses", [addresses.join(" ")])
        // Answers from the outside come in here with foreign source addresses: only the MAC is fixed. Not so by a host's: its
        // pods' answers come in by its DPU's, and a host is not believed.
        .set(
            "port_security",
            [if place.host.is_some() {
                addresses.join(" ")
            } else {
                mac.to_string()
            }],
        )
        .keys("options", [("requested-chassis", place.chassis.as_str())])
        .set("external_ids", Datum::from(facts.encode()))
        .parent(RowId::new("Logical_Switch", JOIN_SUBNET), "ports");

    // The packets of a host, and of its pods, are routed where its DPU's are, and leave with them.
    if place.host.is_some() {
        return Ok(vec![port]);
    }
    // Not pods alone: a host's own processes ask Services with endpoints outside by its `ob0`.
    let mut leaving = pod_cidrs(index);
    leaving.extend(join_cidrs(index));
    let way_out = |ip: &IpAddr| {
        let family = if ip.is_ipv4() { 4 } else { 6 };
        let sources = of_family(&leaving, family);
        // One chassis has the port, so one chassis has the flow.
        let here = format!("is_chassis_resident(\"{port_name}\")");
        (!sources.is_empty()).then(|| {
            DesiredRow::new("Logical_Router_Policy", format!("{port_name}/{family}"))
                .set("priority", EGRESS_PRIORITY)
                .set(
                    "match",
                    format!("ip{family}.src == {} && {here}", match_set(&sources)),
                )
                .set("action", "reroute")
                .set("nexthops", [ip.to_string()])
                .parent(RowId::new("Logical_Router", DEFAULT_VPC), "policies")
        })
    };
    Ok(std::iter::once(port)
        .chain(ips.iter().filter_map(way_out))
        .collect())
}

/// Whose packets leave with the node's address: pods', and those of the `ob0` of the host that a DPU serves.
fn masqueraded(index: &Index) -> Vec<IpNet> {
    let mut sources = nat_cidrs(index);
    sources.extend(join_cidrs(index));
    sources
}

/// What the node's daemon must know. None if the join subnet does not have these addresses.
fn facts(index: &Index, place: &Place, mac: Mac, ips: &[IpAddr]) -> Option<PortFacts> {
    let join = index.subnets.get(JOIN_SUBNET)?;
    let layout = join.layout.as_ref().ok()?;
    let with_prefix = |ip: &IpAddr| IpNet::new(*ip, layout.cidr_of(*ip)?.prefix_len()).ok();
    let ips: Vec<IpNet> = ips.iter().map(with_prefix).collect::<Option<_>>()?;
    if ips.is_empty() {
        return None;
    }
    let has_family = |gateway: &&IpAddr| ips.iter().any(|ip| ip.contains(*gateway));
    Some(PortFacts {
        chassis: [place.chassis.clone()].into(),
        host: place.host.clone(),
        role: Role::Node(NodeFacts {
            pod_cidrs: pod_cidrs(index),
            service_cidrs: index.settings.service_cidrs.clone(),
            join_cidrs: join_cidrs(index),
            nat_cidrs: masqueraded(index),
        }),
        subnet: JOIN_SUBNET.to_owned(),
        mac,
        gateways: layout.gateways.iter().filter(has_family).copied().collect(),
        ips,
        routes: Vec::new(),
        mtu: join.spec.mtu,
        default_route: false,
    })
}
