//! A pod's rows: one logical switch port for each interface.

use super::dhcp;
use crate::index::{Index, NadEntry, Place, PodEntry, unpaired};
use crate::ipam::{Port, Wish, with_prefix};
use crate::rows::{DesiredRow, Problem, RowId};
use api::names::{self, PRIMARY_IFNAME};
use api::{
    Mac, MigrationTarget, PodPort, PortFacts, Role, Selection, request_network_ips, selections,
};
use ovsdb::Datum;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// An interface that a pod is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name in the pod.
    pub ifname: String,
    /// The subnet it is in.
    pub subnet: String,
    /// What was asked for.
    pub wish: Wish,
    /// Whether it is a vhost-user socket of a VM (or the tap that stands in for one).
    pub vhost_user: bool,
}

/// Where a machine's port is coming to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coming {
    /// The pod.
    pub target: MigrationTarget,
    /// Where its ports are.
    pub chassis: String,
    /// Whether the port there passes nothing before the machine has announced itself, or has arrived.
    pub silent: bool,
}

/// The interfaces of a pod, and what is wrong with those that it cannot have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// Those that it can have.
    pub wanted: Vec<Interface>,
    /// The others, by name; no name if the annotation as a whole makes no sense.
    pub refused: Vec<(Option<String>, Problem)>,
}

/// The interfaces that the pod `ns`/… asks for.
pub fn interfaces(index: &Index, ns: &str, pod: &PodEntry) -> Interfaces {
    let mut all = Interfaces::default();
    if index.place(&pod.node).is_none() {
        let problem = Problem::new("NoDpu", unpaired(&pod.node));
        all.refused.push((None, problem));
        return all;
    }
    match primary(index, ns, pod) {
        Ok(interface) => all.wanted.push(interface),
        Err(problem) => all.refused.push((Some(PRIMARY_IFNAME.to_owned()), problem)),
    }
    match asked(ns, pod) {
        Err(problem) => all.refused.push((None, problem)),
        Ok(list) => {
            for selection in list {
                match secondary(index, ns, &selection) {
                    Ok(Some(interface)) => all.wanted.push(interface),
                    Ok(None) => {}
                    Err(problem) => all.refused.push((Some(selection.ifname), problem)),
                }
            }
        }
    }
    all
}

/// The secondary networks that the pod asks for, its VM's requests among them.
fn asked(ns: &str, pod: &PodEntry) -> Result<Vec<Selection>, Problem> {
    let Some(requests) = pod.requests.as_deref() else {
        return Ok(Vec::new());
    };
    let mut list = selections(requests.networks.as_deref().unwrap_or_default(), ns)
        .map_err(|error| Problem::new("InvalidNetworks", error.to_string()))?;
    let Some(addresses) = &requests.network_ips else {
        return Ok(list);
    };
    let invalid = |sentence: String| Problem::new("InvalidRequest", sentence);
    if pod.vm.is_none() {
        let (key, networks) = (names::ANNOTATION_NETWORK_IPS, names::ANNOTATION_NETWORKS);
        return Err(invalid(format!(
            "annotation {key} is for virtual machines: write \"ips\" into the elements of {networks}"
        )));
    }
    request_network_ips(&mut list, addresses).map_err(|error| invalid(error.to_string()))?;
    Ok(list)
}

fn primary(index: &Index, ns: &str, pod: &PodEntry) -> Result<Interface, Problem> {
    let subnet = index.primary_subnet(ns).to_owned();
    usable(index, &subnet, || format!("Namespace {ns}"))?;
    let requests = pod.requests.as_deref();
    let invalid = |sentence: String| Problem::new("InvalidRequest", sentence);
    let mut ips: Vec<IpAddr> = Vec::new();
    for text in requests
        .and_then(|r| r.ips.as_deref())
        .into_iter()
        .flat_map(|t| t.split(','))
    {
        let ip: IpAddr = text.trim().parse().map_err(|_| {
            let key = names::ANNOTATION_IPS;
            invalid(format!(
                "annotation {key}: {text:?} is no IP address: write 10.1.2.3"
            ))
        })?;
        if ips.iter().any(|other| other.is_ipv4() == ip.is_ipv4()) {
            let key = names::ANNOTATION_IPS;
            return Err(invalid(format!(
                "annotation {key}: two addresses of one family: write one IPv4 and/or one IPv6 address"
            )));
        }
        ips.push(ip);
    }
    let mac = match requests.and_then(|r| r.mac.as_deref()) {
        None => None,
        Some(text) => Some(text.parse::<Mac>().ok().filter(|mac| mac.is_unicast()).ok_or_else(
            || {
                let key = names::ANNOTATION_MAC;
                invalid(format!(
                    "annotation {key}: {text:?} is no unicast MAC address: write 0a:58:0a:f4:00:05"
                ))
            },
        )?),
    };
    Ok(Interface {
        ifname: PRIMARY_IFNAME.to_owned(),
        subnet,
        wish: Wish { ips, mac },
        vhost_user: false,
    })
}

/// The interface, or none if the network is another plugin's.
fn secondary(index: &Index, ns: &str, asked: &Selection) -> Result<Option<Interface>, Problem> {
    let network = asked.network();
    let key = (asked.namespace.clone(), asked.name.clone());
    let Some(NadEntry { network: nad }) = index.nads.get(&key) else {
        return Err(Problem::new(
            "NoSuchNetwork",
            format!("network {network}: there is no such NetworkAttachmentDefinition: create it"),
        ));
    };
    let ours = nad.as_ref().map_err(|error| {
        Problem::new(
            "InvalidNetwork",
            format!("NetworkAttachmentDefinition {network}: {error}"),
        )
    })?;
    let Some(ours) = ours else {
        if asked.by_machine {
            let key = names::ANNOTATION_NETWORK_IPS;
            let sentence = format!(
                "annotation {key}: network {network} is another plugin's, which does not read it: leave that network out"
            );
            return Err(Problem::new("InvalidRequest", sentence));
        }
        return Ok(None);
    };
    let subnet = &ours.subnet;
    usable(index, subnet, || format!("network {network}"))?;
    let admits = index.subnets.get(subnet).is_some_and(|s| s.spec.admits(ns));
    if !admits {
        return Err(Problem::new(
            "NotAdmitted",
            format!(
                "network {network}: Subnet {subnet} does not admit namespace {ns}: add it to the Subnet's spec.namespaces"
            ),
        ));
    }
    let invalid = |error: api::SelectionError| Problem::new("InvalidRequest", error.to_string());
    Ok(Some(Interface {
        ifname: asked.ifname.clone(),
        subnet: subnet.clone(),
        wish: Wish {
            ips: asked.addresses().map_err(invalid)?,
            mac: asked.mac().map_err(invalid)?,
        },
        vhost_user: ours.vhost_user,
    }))
}

/// Whether new ports can be made in the subnet.
fn usable(index: &Index, subnet: &str, who: impl Fn() -> String) -> Result<(), Problem> {
    let why = match index.subnets.get(subnet) {
        None => "does not exist: create it",
        Some(entry) if entry.deleting => "is being deleted: name another one",
        Some(entry) if entry.layout.is_err() => "has an invalid spec: see its conditions",
        Some(_) => return Ok(()),
    };
    Err(Problem::new(
        "NoSuchSubnet",
        format!("{}: Subnet {subnet} {why}", who()),
    ))
}

/// The name of the port of an interface.
pub fn port_name(ns: &str, name: &str, pod: &PodEntry, interface: &Interface) -> String {
    let owner = pod.vm.as_deref().unwrap_or(name);
    let ifname = Some(interface.ifname.as_str()).filter(|ifname| *ifname != PRIMARY_IFNAME);
    names::pod_port(ns, owner, &interface.subnet, ifname)
}

/// The row of a port that has its addresses.
///
/// While its machine migrates it is on two chassis, and no UID is asked of who binds it: each of the two pods has its own.
pub fn row(
    index: &Index,
    (ns, name): (&str, &str),
    pod: &PodEntry,
    port: &Port,
    coming: Option<&Coming>,
) -> DesiredRow {
    let keep = DesiredRow::new("Logical_Switch_Port", &*port.lsp);
    // Without its subnet, or its place, nothing can be said of the row; as long as the pod runs it stays.
    let subnet = index.subnets.get(&*port.subnet);
    let Some((subnet, Ok(layout))) = subnet.map(|s| (s, s.layout.as_ref())) else {
        return keep;
    };
    let Some(Place { chassis, host }) = index.place(&pod.node) else {
        return keep;
    };
    let mut places = vec![chassis];
    places.extend(coming.map(|coming| coming.chassis.clone()));
    let assigned = &port.assigned;
    let ips: Vec<_> = assigned
        .ips
        .iter()
        .filter_map(|ip| with_prefix(layout, *ip))
        .collect();
    let primary = &*port.ifname == PRIMARY_IFNAME;
    let facts = PortFacts {
        chassis: places.iter().cloned().collect(),
        host,
        role: Role::Pod(PodPort {
            namespace: ns.to_owned(),
            name: name.to_owned(),
            uid: pod.uid.to_string(),
            ifname: port.ifname.to_string(),
            target: coming.map(|coming| coming.target.clone()),
        }),
        subnet: port.subnet.to_string(),
        mac: assigned.mac,
        gateways: layout
            .gateways
            .iter()
            .filter(|gateway| ips.iter().any(|ip| ip.contains(*gateway)))
            .copied()
            .collect(),
        ips,
        routes: Vec::new(),
        mtu: subnet.spec.mtu,
        default_route: primary,
    };
    let addresses: Vec<String> = std::iter::once(assigned.mac.to_string())
        .chain(assigned.ips.iter().map(ToString::to_string))
        .collect();
    let addresses = addresses.join(" ");
    // The first is the main one.
    let mut options = BTreeMap::from([("requested-chassis", places.join(","))]);
    match coming {
        None => drop(options.insert("iface-id-ver", pod.uid.to_string())),
        Some(Coming { silent: true, .. }) => {
            options.insert("activation-strategy", "rarp".to_owned());
        }
        Some(_) => {}
    }
    let row = keep
        .set("name", &*port.lsp)
        .set("addresses", addresses.as_str())
        .set("port_security", addresses.as_str())
        .set("options", Datum::map(options))
        .set("external_ids", Datum::from(facts.encode()))
        .parent(RowId::new("Logical_Switch", &*port.subnet), "ports");
    dhcp::answered(row, &port.subnet, pod.vm.is_some(), &assigned.ips)
}

#[cfg(test)]
mod tests;
