//! Pods against what was found of them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::observe::{LogicalPort, Observed, OnNode, is_host_link};
use super::pairs;
use crate::pods::Pod;

/// One sentence for each difference.
pub(super) fn leaks(seen: &Observed) -> Vec<String> {
    let owners: BTreeMap<&str, &Pod> = seen
        .pods
        .iter()
        .filter(|pod| !pod.host_network && !pod.completed && !pod.node.is_empty())
        .map(|pod| (pod.uid.as_str(), pod))
        .collect();
    let mut leaks = Vec::new();
    ports(seen, &owners, &mut leaks);
    addresses(seen, &owners, &mut leaks);
    for node in &seen.nodes {
        on_node(node, seen, &owners, &mut leaks);
        pairs::functions(node, &owners, &mut leaks);
    }
    leaks
}

/// The pods that there are, by UID.
pub(super) type Owners<'a> = BTreeMap<&'a str, &'a Pod>;

fn ports(seen: &Observed, owners: &Owners<'_>, leaks: &mut Vec<String>) {
    for port in &seen.ports {
        match owners.get(port.uid.as_str()) {
            Some(pod) if pod.full_name() == port.pod => {}
            _ => leaks.push(format!(
                "LSP {} is of pod {} (UID {}), which is gone",
                port.name, port.pod, port.uid
            )),
        }
    }
    for pod in owners.values() {
        let Some(port) = seen
            .ports
            .iter()
            .find(|port| port.uid == pod.uid && port.ifname == "eth0")
        else {
            leaks.push(format!("pod {} has no LSP for eth0", pod.full_name()));
            continue;
        };
        let (reported, allocated): (BTreeSet<_>, BTreeSet<_>) =
            (pod.ips.iter().collect(), port.ips.iter().collect());
        if !reported.is_empty() && reported != allocated {
            leaks.push(format!(
                "pod {} reports {reported:?}, its LSP has {allocated:?}",
                pod.full_name()
            ));
        }
    }
}

fn addresses(seen: &Observed, owners: &Owners<'_>, leaks: &mut Vec<String>) {
    let mut holders: BTreeMap<(&str, &str), Vec<&LogicalPort>> = BTreeMap::new();
    for port in &seen.ports {
        for ip in &port.ips {
            holders.entry((&port.subnet, ip)).or_default().push(port);
        }
    }
    for ((subnet, ip), ports) in holders {
        if ports.len() > 1 {
            let names: Vec<_> = ports.iter().map(|port| port.name.as_str()).collect();
            leaks.push(format!(
                "address {ip} of subnet {subnet} is held by {}",
                names.join(" and ")
            ));
        }
    }
    // Nodes have theirs in the join subnet, which is not a pod's affair.
    for subnet in seen.subnets.iter().filter(|subnet| subnet.name != "join") {
        for (family, used) in &subnet.used {
            let v6 = *family == "v6";
            let held = seen.ports.iter().filter(|port| port.subnet == subnet.name);
            let held = held.filter(|port| port.ips.iter().any(|ip| ip.contains(':') == v6));
            let held = held
                .filter(|port| owners.contains_key(port.uid.as_str()))
                .count();
            if i64::try_from(held) != Ok(*used) {
                leaks.push(format!(
                    "subnet {} counts {used} {family} addresses as used, pods hold {held}",
                    subnet.name
                ));
            }
        }
    }
}

fn on_node(node: &OnNode, seen: &Observed, owners: &Owners<'_>, leaks: &mut Vec<String>) {
    let at = &node.name;
    let here = |uid: &str| {
        let owner = owners.get(uid);
        owner.is_some_and(|pod| node.ports_of.contains(&pod.node))
    };
    let mut iface_ids = BTreeSet::new();
    for interface in &node.interfaces {
        let name = &interface.name;
        let of_host = pairs::is_hosts_own(interface, node);
        if !of_host && !here(&interface.uid) {
            leaks.push(format!(
                "{at}: OVS interface {name} is of a pod (UID {}) that is gone",
                interface.uid
            ));
        }
        if !iface_ids.insert(&interface.iface_id) {
            leaks.push(format!(
                "{at}: two OVS interfaces have iface-id {}",
                interface.iface_id
            ));
        }
        let has_port = |port: &LogicalPort| port.name == interface.iface_id;
        if !of_host && !seen.ports.iter().any(has_port) {
            leaks.push(format!(
                "{at}: OVS interface {name} is of LSP {}, which is gone",
                interface.iface_id
            ));
        }
        if !node.links.contains(name) {
            leaks.push(format!("{at}: OVS interface {name} has no link"));
        }
        let recorded = |r: &&super::observe::Record| {
            r.sandbox == interface.sandbox && r.ifname == interface.ifname
        };
        if node.journal.iter().find(recorded).is_none() {
            leaks.push(format!("{at}: OVS interface {name} has no journal record"));
        }
    }
    for link in node.links.iter().filter(|link| is_host_link(link)) {
        if !node
            .interfaces
            .iter()
            .any(|interface| interface.name == *link)
        {
            leaks.push(format!("{at}: link {link} has no OVS interface"));
        }
    }
    for record in &node.journal {
        if !here(&record.uid) && !pairs::is_of(record, node, owners) {
            leaks.push(format!(
                "{at}: the journal has {} of sandbox {} of a pod (UID {}) that is gone",
                record.ifname, record.sandbox, record.uid
            ));
        }
    }
    for pod in owners
        .values()
        .filter(|pod| node.ports_of.contains(&pod.node) && !pod.ips.is_empty())
    {
        if !node
            .interfaces
            .iter()
            .any(|i| i.uid == pod.uid && i.ifname == "eth0")
        {
            leaks.push(format!(
                "{at}: pod {} has no OVS interface for eth0",
                pod.full_name()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::observe::{Interface, Record, Subnet};
    use super::*;

    /// One pod with everything it should have.
    fn sound() -> Observed {
        let pod = Pod {
            namespace: "ns".into(),
            name: "p".into(),
            uid: "u".into(),
            node: "n1".into(),
            ips: vec!["10.0.0.5".into()],
            ..Pod::default()
        };
        let port = LogicalPort {
            name: "ns/p/default".into(),
            pod: "ns/p".into(),
            uid: "u".into(),
            ifname: "eth0".into(),
            subnet: "default".into(),
            ips: vec!["10.0.0.5".into()],
        };
        let interface = Interface {
            name: "ob0123456789abc".into(),
            iface_id: "ns/p/default".into(),
            uid: "u".into(),
            sandbox: "s".into(),
            ifname: "eth0".into(),
        };
        let record = Record {
            uid: "u".into(),
            sandbox: "s".into(),
            ifname: "eth0".into(),
            function: None,
        };
        let node = OnNode {
            name: "n1".into(),
            ports_of: vec!["n1".into()],
            links: [interface.name.clone()].into(),
            interfaces: vec![interface],
            functions: None,
            journal: vec![record],
        };
        let subnet = Subnet {
            name: "default".into(),
            used: vec![("v4", 1)],
        };
        Observed {
            pods: vec![pod],
            ports: vec![port],
            nodes: vec![node],
            subnets: vec![subnet],
        }
    }

    #[test]
    fn a_sound_cluster_has_no_leaks() {
        assert_eq!(leaks(&sound()), Vec::<String>::new());
    }

    #[test]
    fn all_that_a_gone_pod_left_is_named() {
        let seen = Observed {
            pods: Vec::new(),
            ..sound()
        };
        let found = leaks(&seen).join("\n");
        for part in [
            "LSP ns/p/default",
            "counts 1 v4",
            "OVS interface ob0123456789abc is of a pod",
            "the journal has eth0",
        ] {
            assert!(found.contains(part), "{part}: {found}");
        }
    }

    #[test]
    fn what_a_pod_lacks_is_named() {
        let mut seen = sound();
        seen.ports.clear();
        seen.nodes[0].links.clear();
        seen.nodes[0].journal.clear();
        let found = leaks(&seen).join("\n");
        for part in [
            "has no LSP",
            "is of LSP ns/p/default, which is gone",
            "has no link",
            "has no journal record",
        ] {
            assert!(found.contains(part), "{part}: {found}");
        }
    }

    #[test]
    fn one_address_twice_is_named() {
        let mut seen = sound();
        let twin = LogicalPort {
            name: "twin".into(),
            ..seen.ports[0].clone()
        };
        seen.ports.push(twin);
        assert!(
            leaks(&seen)
                .join("\n")
                .contains("10.0.0.5 of subnet default is held by ns/p/default and twin")
        );
    }
}
