//! A pod's rows: one logical switch port for each interface.

use super::dhcp;
use crate::index::{Index, NadEntry, Place, PodEntry, unpaired};
use crate::ipam::{Port, Wish, with_prefix};
use crate::rows::{DesiredRow, Problem, RowId};
use api::names::{self, PRIMARY_IFNAME};
use api::{Mac, PodPort, PortFacts, Role, Selection, selections};
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
    let Some(annotation) = pod.networks() else {
        return all;
    };
    match selections(annotation, ns) {
        Err(error) => {
            let problem = Problem::new("InvalidNetworks", error.to_string());
            all.refused.push((None, problem));
        }
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
pub fn row(index: &Index, ns: &str, name: &str, pod: &PodEntry, port: &Port) -> DesiredRow {
    let keep = DesiredRow::new("Logical_Switch_Port", &*port.lsp);
    // Without its subnet, or its place, nothing can be said of the row; as long as the pod runs it stays.
    let subnet = index.subnets.get(&*port.subnet);
    let Some((subnet, Ok(layout))) = subnet.map(|s| (s, s.layout.as_ref())) else {
        return keep;
    };
    let Some(Place { chassis, host }) = index.place(&pod.node) else {
        return keep;
    };
    let assigned = &port.assigned;
    let ips: Vec<_> = assigned
        .ips
        .iter()
        .filter_map(|ip| with_prefix(layout, *ip))
        .collect();
    let primary = &*port.ifname == PRIMARY_IFNAME;
    let facts = PortFacts {
        chassis: [chassis.clone()].into(),
        host,
        role: Role::Pod(PodPort {
            namespace: ns.to_owned(),
            name: name.to_owned(),
            uid: pod.uid.to_string(),
            ifname: port.ifname.to_string(),
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
    let options = [("iface-id-ver", &*pod.uid), ("requested-chassis", &chassis)];
    let row = keep
        .set("name", &*port.lsp)
        .set("addresses", addresses.as_str())
        .set("port_security", addresses.as_str())
        .set("options", Datum::from(BTreeMap::from(options)))
        .set("external_ids", Datum::from(facts.encode()))
        .parent(RowId::new("Logical_Switch", &*port.subnet), "ports");
    dhcp::answered(row, &port.subnet, pod.vm.is_some(), &assigned.ips)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{Dirty, Indexed, Settings};
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    fn index(objects: &[(&str, serde_json::Value)]) -> Index {
        let mut index = Index::new(Settings::default());
        for (name, spec) in objects {
            let object = json!({"metadata": {"name": name}, "spec": spec});
            let subnet: api::Subnet = serde_json::from_value(object).unwrap();
            subnet.put(&mut index, &mut Dirty::default());
        }
        index
    }

    fn nad(index: &mut Index, ns: &str, name: &str, config: &str) {
        let object =
            json!({"metadata": {"name": name, "namespace": ns}, "spec": {"config": config}});
        let nad: api::NetworkAttachmentDefinition = serde_json::from_value(object).unwrap();
        nad.put(index, &mut Dirty::default());
    }

    fn pod(annotations: &serde_json::Value) -> PodEntry {
        let object = json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "annotations": annotations},
            "spec": {"nodeName": "n1", "containers": []},
        });
        let pod: Pod = serde_json::from_value(object).unwrap();
        PodEntry::from_pod(&pod, false).unwrap()
    }

    #[test]
    fn a_plain_pod_has_eth0_in_the_default_subnet() {
        let index = index(&[("default", json!({"cidrs": ["10.0.0.0/24"]}))]);
        let all = interfaces(&index, "ns", &pod(&json!({})));
        assert_eq!(all.refused, []);
        assert_eq!(
            (&*all.wanted[0].ifname, &*all.wanted[0].subnet),
            ("eth0", "default")
        );
    }

    #[test]
    fn a_primary_subnet_takes_its_namespaces() {
        let own = json!({"cidrs": ["10.1.0.0/24"], "namespaces": ["ns"], "primary": true});
        let index = index(&[("default", json!({"cidrs": ["10.0.0.0/24"]})), ("own", own)]);
        assert_eq!(
            interfaces(&index, "ns", &pod(&json!({}))).wanted[0].subnet,
            "own"
        );
        assert_eq!(
            interfaces(&index, "other", &pod(&json!({}))).wanted[0].subnet,
            "default"
        );
    }

    #[test]
    fn secondary_networks_count_all_positions_and_are_admitted_or_not() {
        let mut index = index(&[
            ("default", json!({"cidrs": ["10.0.0.0/24"]})),
            (
                "storage",
                json!({"cidrs": ["10.1.0.0/24"], "namespaces": ["ns"]}),
            ),
            ("closed", json!({"cidrs": ["10.2.0.0/24"]})),
        ]);
        nad(&mut index, "ns", "bridge", r#"{"type":"bridge"}"#);
        nad(
            &mut index,
            "ns",
            "ours",
            r#"{"type":"outboard","subnet":"storage"}"#,
        );
        nad(
            &mut index,
            "ns",
            "closed",
            r#"{"type":"outboard","subnet":"closed"}"#,
        );
        nad(&mut index, "ns", "broken", r#"{"type":"outboard"}"#);
        let annotation = "bridge,ours,closed,broken,absent,ours@fast";
        let key = "k8s.v1.cni.cncf.io/networks";
        let all = interfaces(&index, "ns", &pod(&json!({ key: annotation })));
        let wanted: Vec<_> = all
            .wanted
            .iter()
            .map(|i| (&*i.ifname, &*i.subnet))
            .collect();
        assert_eq!(
            wanted,
            [
                ("eth0", "default"),
                ("net2", "storage"),
                ("fast", "storage")
            ]
        );
        let refused: Vec<_> = all
            .refused
            .iter()
            .map(|(name, p)| (name.as_deref().unwrap(), p.reason))
            .collect();
        let expected = [
            ("net3", "NotAdmitted"),
            ("net4", "InvalidNetwork"),
            ("net5", "NoSuchNetwork"),
        ];
        assert_eq!(refused, expected);
    }

    #[test]
    fn requests_are_checked() {
        let index = index(&[("default", json!({"cidrs": ["10.0.0.0/24"]}))]);
        let ask = |key: &str, value: &str| {
            let all = interfaces(&index, "ns", &pod(&json!({ key: value })));
            all.refused
                .first()
                .map(|(_, problem)| problem.sentence.clone())
        };
        assert_eq!(ask("iaas.yusur.io/ips", "10.0.0.9"), None);
        assert!(
            ask("iaas.yusur.io/ips", "10.0.0.9,x")
                .unwrap()
                .contains("no IP address")
        );
        assert!(
            ask("iaas.yusur.io/ips", "10.0.0.9,10.0.0.8")
                .unwrap()
                .contains("one family")
        );
        assert!(
            ask("iaas.yusur.io/mac", "01:00:00:00:00:01")
                .unwrap()
                .contains("unicast")
        );
    }

    #[test]
    fn without_its_subnet_a_port_is_kept_as_it_is() {
        let empty = index(&[]);
        let port = Port {
            ifname: "eth0".into(),
            lsp: "ns/p/default".into(),
            uid: "u".into(),
            subnet: "default".into(),
            assigned: crate::ipam::Assigned {
                mac: Mac([2, 0, 0, 0, 0, 1]),
                ips: vec![],
            },
        };
        let row = row(&empty, "ns", "p", &pod(&json!({})), &port);
        assert!(row.columns.is_empty() && row.parents.is_empty());
    }
}
