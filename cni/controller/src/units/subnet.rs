//! A Subnet's rows: its logical switch, the two ends of its router port, and what VMs in it are answered ([`super::dhcp`]).

use super::dhcp;
use crate::index::{Index, SubnetEntry};
use crate::rows::{DesiredRow, Problem, RowId};
use api::names::{self, DEFAULT_SUBNET, DEFAULT_VPC, JOIN_SUBNET};
use api::{Layout, Mac};
use ipnet::IpNet;
use ovsdb::Datum;

/// The rows of the Subnet `name`.
pub fn desired(index: &Index, name: &str) -> Result<Vec<DesiredRow>, Problem> {
    let Some(subnet) = index.subnets.get(name) else {
        return Ok(Vec::new());
    };
    let vpc = subnet.spec.vpc.as_str();
    let layout = usable_layout(index, name, subnet)?;

    let group = RowId::new("Load_Balancer_Group", names::load_balancer_group(vpc));
    let switch = DesiredRow::new("Logical_Switch", name)
        .set("name", name)
        // A load balancer on a switch sends all of its traffic through connection tracking.
        .refs("load_balancer_group", subnet.spec.services.then_some(group));

    let router_port = names::router_port(vpc, name);
    let networks = layout.cidrs.iter().zip(&layout.gateways);
    let router_end = DesiredRow::new("Logical_Router_Port", router_port.as_str())
        .set("name", router_port.as_str())
        .set("mac", Mac::of(layout.gateways[0]).to_string())
        .set(
            "networks",
            networks
                .map(|(cidr, gateway)| format!("{gateway}/{}", cidr.prefix_len()))
                .collect::<Vec<_>>(),
        )
        .set(
            "ipv6_ra_configs",
            Datum::map(dhcp::advertisements(layout, subnet.spec.mtu)),
        )
        .parent(RowId::new("Logical_Router", vpc), "ports");

    let switch_port = names::switch_router_port(name);
    let switch_end = DesiredRow::new("Logical_Switch_Port", switch_port.as_str())
        .set("name", switch_port.as_str())
        .set("type", "router")
        .set("addresses", ["router"])
        .keys("options", [("router-port", router_port.as_str())])
        .parent(RowId::new("Logical_Switch", name), "ports");
    let mut rows = vec![switch, router_end, switch_end];
    rows.extend(dhcp::rows(name, layout, subnet.spec.mtu));
    Ok(rows)
}

/// The subnet's addresses, if nothing speaks against putting them on the VPC's router.
///
/// Two Subnets that overlap both have the problem: the older one keeps the rows that it has, the
/// newer one gets none. `default` and `join` are above that: the cluster hangs on them.
fn usable_layout<'a>(
    index: &Index,
    name: &str,
    subnet: &'a SubnetEntry,
) -> Result<&'a Layout, Problem> {
    let vpc = subnet.spec.vpc.as_str();
    let layout = subnet.layout.as_ref().map_err(|error| {
        Problem::new(
            "InvalidSubnet",
            format!("Subnet {name}: {error}; make a new Subnet"),
        )
    })?;
    if !index.vpcs.contains_key(vpc) {
        let sentence =
            format!("Subnet {name}: there is no Vpc {vpc}; create it, or a Subnet in another one");
        return Err(Problem::new("NoVpc", sentence));
    }
    if matches!(name, DEFAULT_SUBNET | JOIN_SUBNET) {
        return Ok(layout);
    }
    for (other_name, other) in index.subnets_of(vpc).filter(|(other, _)| *other != name) {
        if other
            .layout
            .as_ref()
            .is_ok_and(|other| other.overlaps(layout))
        {
            let sentence = format!(
                "Subnet {name}: its cidrs overlap those of Subnet {other_name} in the same Vpc {vpc}; delete one of them"
            );
            return Err(Problem::new("Overlap", sentence));
        }
    }
    let overlap = |service: &&IpNet| {
        layout
            .cidrs
            .iter()
            .any(|cidr| cidr.contains(*service) || service.contains(cidr))
    };
    match index
        .settings
        .service_cidrs
        .iter()
        .find(overlap)
        .filter(|_| vpc == DEFAULT_VPC)
    {
        Some(service) => {
            let sentence = format!(
                "Subnet {name}: its cidrs overlap the cluster's service CIDR {service}; choose others"
            );
            Err(Problem::new("Overlap", sentence))
        }
        None => Ok(layout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Settings;
    use api::{Subnet, SubnetSpec, Vpc, VpcSpec};

    fn index(subnets: &[(&str, &str, &str)]) -> Index {
        let service_cidrs = vec!["10.96.0.0/16".parse().unwrap()];
        let mut index = Index::new(Settings {
            service_cidrs,
            ..Settings::default()
        });
        for vpc in ["default", "blue"] {
            index
                .vpcs
                .insert(vpc.into(), (&Vpc::new(vpc, VpcSpec::default())).into());
        }
        for (name, vpc, cidr) in subnets {
            let mut spec = SubnetSpec::new([cidr.parse().unwrap()]);
            spec.vpc = (*vpc).to_owned();
            index
                .subnets
                .insert((*name).into(), (&Subnet::new(name, spec)).into());
        }
        index
    }

    fn problem(index: &Index, name: &str) -> Option<&'static str> {
        desired(index, name).err().map(|problem| problem.reason)
    }

    #[test]
    fn overlap_in_one_vpc_is_a_problem_of_both_but_never_of_the_default_subnet() {
        let index = index(&[
            ("default", "default", "10.244.0.0/16"),
            ("inside", "default", "10.244.7.0/24"),
            ("a", "default", "10.1.0.0/16"),
            ("b", "default", "10.1.2.0/24"),
            ("c", "blue", "10.1.2.0/24"),
        ]);
        assert_eq!(problem(&index, "default"), None);
        assert_eq!(problem(&index, "inside"), Some("Overlap"));
        assert_eq!(problem(&index, "a"), Some("Overlap"));
        assert_eq!(problem(&index, "b"), Some("Overlap"));
        assert_eq!(problem(&index, "c"), None);
    }

    #[test]
    fn services_live_in_the_default_vpc_alone() {
        let index = index(&[
            ("s", "default", "10.96.7.0/24"),
            ("t", "blue", "10.96.7.0/24"),
        ]);
        assert_eq!(problem(&index, "s"), Some("Overlap"));
        assert_eq!(problem(&index, "t"), None);
    }

    #[test]
    fn a_subnet_without_its_vpc_says_so() {
        let index = index(&[("s", "green", "10.1.0.0/16")]);
        let problem = desired(&index, "s").unwrap_err();
        assert_eq!(problem.reason, "NoVpc");
        assert!(
            problem.sentence.contains("no Vpc green"),
            "{}",
            problem.sentence
        );
    }

    #[test]
    fn what_is_gone_has_no_rows() {
        assert_eq!(desired(&index(&[]), "s"), Ok(Vec::new()));
    }
}
