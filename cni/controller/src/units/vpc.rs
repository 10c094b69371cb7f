//! A Vpc's rows: its logical router, its load balancer group, its routes and ways out.
//!
//! Only the VPC `default` has a way out. A pod's packet to the outside meets three things in the
//! router, in this order: a route (a default route to an address that nobody has, for without any
//! route the packet is dropped before policies are asked), the policy of priority 200 that lets
//! everything inside pass, and the policy of priority 100 of the pod's own node ([`super::node`]),
//! which sends it to that node's `ob0`.

use crate::index::{Index, SubnetEntry, egress_hop};
use crate::rows::{DesiredRow, Problem, RowId};
use api::names::{self, DEFAULT_VPC, JOIN_SUBNET};
use ipnet::IpNet;
use std::net::IpAddr;

/// Priority of the policies that let traffic inside the VPC pass.
const INSIDE_PRIORITY: i64 = 200;

/// The rows of the Vpc `name`.
pub fn desired(index: &Index, name: &str) -> Result<Vec<DesiredRow>, Problem> {
    if !index.vpcs.contains_key(name) {
        return Ok(Vec::new());
    }
    let router = DesiredRow::new("Logical_Router", name)
        .set("name", name)
        .keys(
            "options",
            [
                // Neighbours are known from the ports' addresses: learning them would only age.
                ("always_learn_from_arp_request", "false"),
                ("mac_binding_age_threshold", "300"),
            ],
        );
    let group = names::load_balancer_group(name);
    let group = DesiredRow::new("Load_Balancer_Group", group.as_str()).set("name", group.as_str());
    let mut rows = vec![group, router];

    if name == DEFAULT_VPC {
        rows.extend(ways_out(index));
    }
    Ok(rows)
}

/// What a pod's packet needs on its way to its node: see the module's documentation.
fn ways_out(index: &Index) -> Vec<DesiredRow> {
    let mut rows = Vec::new();
    for join in join_cidrs(index) {
        rows.push(route(DEFAULT_VPC, everything(join), egress_hop(join)));
    }
    let mut inside = pod_cidrs(index);
    inside.extend(join_cidrs(index));
    for family in [4, 6] {
        let of_family = of_family(&inside, family);
        if of_family.is_empty() {
            continue;
        }
        let policy = DesiredRow::new(
            "Logical_Router_Policy",
            format!("{DEFAULT_VPC}/inside/{family}"),
        )
        .set("priority", INSIDE_PRIORITY)
        .set(
            "match",
            format!("ip{family}.dst == {}", match_set(&of_family)),
        )
        .set("action", "allow")
        .parent(RowId::new("Logical_Router", DEFAULT_VPC), "policies");
        rows.push(policy);
    }
    rows
}

fn route(vpc: &str, cidr: IpNet, hop: IpAddr) -> DesiredRow {
    DesiredRow::new("Logical_Router_Static_Route", format!("{vpc}/{cidr}/{hop}"))
        .set("ip_prefix", cidr.to_string())
        .set("nexthop", hop.to_string())
        .parent(RowId::new("Logical_Router", vpc), "static_routes")
}

fn everything(of_the_family_of: IpNet) -> IpNet {
    let none = match of_the_family_of {
        IpNet::V4(_) => IpNet::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0),
        IpNet::V6(_) => IpNet::new(std::net::Ipv6Addr::UNSPECIFIED.into(), 0),
    };
    none.expect("a prefix of no bits is a prefix")
}

/// The CIDRs of pods in the default VPC, sorted.
pub(crate) fn pod_cidrs(index: &Index) -> Vec<IpNet> {
    collect(index, |_| true)
}

/// Those whose traffic to the outside is masqueraded.
pub(crate) fn nat_cidrs(index: &Index) -> Vec<IpNet> {
    collect(index, |subnet| subnet.spec.nat_outgoing)
}

/// The CIDRs of the join subnet, IPv4 first.
pub(crate) fn join_cidrs(index: &Index) -> Vec<IpNet> {
    let join = index
        .subnets
        .get(JOIN_SUBNET)
        .and_then(|join| join.layout.as_ref().ok());
    join.map(|layout| layout.cidrs.clone()).unwrap_or_default()
}

fn collect(index: &Index, wanted: impl Fn(&SubnetEntry) -> bool) -> Vec<IpNet> {
    let mut cidrs: Vec<IpNet> = index
        .subnets_of(DEFAULT_VPC)
        .filter(|(name, subnet)| *name != JOIN_SUBNET && wanted(subnet))
        .filter_map(|(_, subnet)| subnet.layout.as_ref().ok())
        .flat_map(|layout| layout.cidrs.iter().copied())
        .collect();
    cidrs.sort_unstable();
    cidrs
}

/// Those of one family: 4 or 6.
pub(crate) fn of_family(cidrs: &[IpNet], family: u8) -> Vec<IpNet> {
    cidrs
        .iter()
        .copied()
        .filter(|cidr| cidr.addr().is_ipv4() == (family == 4))
        .collect()
}

/// A set in OVN's match language.
pub(crate) fn match_set(cidrs: &[IpNet]) -> String {
    let cidrs: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
    format!("{{{}}}", cidrs.join(", "))
}
