//! The objects of the test, and the packets of its pods.

use crate::ovn::Ovn;
use api::{Dpu, DpuSpec, Mac, Subnet, SubnetSpec, Vpc, VpcSpec};
use cni_controller::index::{
    Dirty, EndpointEntry, Index, Indexed as _, NodeEntry, Protocol, ServiceEntry, ServicePortEntry,
    Settings, SliceEntry,
};
use cni_controller::rows::DesiredRow;
use cni_controller::units::{node, service, subnet, vpc};
use std::net::IpAddr;

pub(crate) struct World {
    pub(crate) index: Index,
}

/// Name, chassis, subnet and addresses of the pods.
const PODS: [(&str, &str, &str, &[&str]); 6] = [
    ("p1", "n1", "default", &["10.244.0.11", "fd00:10:244::11"]),
    ("p2", "n2", "default", &["10.244.0.12", "fd00:10:244::12"]),
    ("p3", "n1", "plain", &["10.245.0.13"]),
    ("p4", "n2", "plain", &["10.245.0.14"]),
    ("b1", "n1", "blue", &["10.250.0.11"]),
    ("b2", "n1", "blue", &["10.250.0.12"]),
];

/// The last one is the host of DPU n1.
const NODES: [(&str, &[&str]); 3] = [
    ("n1", &["100.64.0.11", "fd00:100:64::11"]),
    ("n2", &["100.64.0.12", "fd00:100:64::12"]),
    ("h1", &["100.64.0.21", "fd00:100:64::21"]),
];

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn mac(addresses: &[&str]) -> Mac {
    Mac::of(ips(addresses)[0])
}

impl World {
    pub(crate) fn new() -> Self {
        let mut index = Index::new(Settings {
            service_cidrs: vec![
                "10.96.0.0/16".parse().unwrap(),
                "fd00:10:96::/112".parse().unwrap(),
            ],
            ..Settings::default()
        });
        index.vpcs.insert(
            "default".into(),
            (&Vpc::new("default", VpcSpec::default())).into(),
        );
        index.vpcs.insert(
            "blue".into(),
            (&Vpc::new("blue", VpcSpec::default())).into(),
        );
        let mut add = |name: &str, cidrs: &[&str], change: &dyn Fn(&mut SubnetSpec)| {
            let mut spec = SubnetSpec::new(cidrs.iter().map(|cidr| cidr.parse().unwrap()));
            change(&mut spec);
            index
                .subnets
                .insert(name.into(), (&Subnet::new(name, spec)).into());
        };
        add("default", &["10.244.0.0/16", "fd00:10:244::/64"], &|spec| {
            spec.nat_outgoing = true;
        });
        add("join", &["100.64.0.0/16", "fd00:100:64::/64"], &|_| ());
        add("plain", &["10.245.0.0/16"], &|spec| spec.services = false);
        add("blue", &["10.250.0.0/16"], &|spec| spec.vpc = "blue".into());
        for (name, addresses) in NODES {
            let entry = NodeEntry {
                uid: name.into(),
                addresses: ips(addresses),
                ..NodeEntry::default()
            };
            index.nodes.insert(name.into(), entry);
        }
        let pair = DpuSpec::new("n1", "h1", ips(&["198.18.9.1"])[0]);
        Dpu::new("pair", pair).put(&mut index, &mut Dirty::default());
        let mut world = Self { index };
        world.add_service(
            "web",
            &["10.96.0.10", "fd00:10:96::a"],
            (Protocol::Tcp, 80, 8080),
            &[&["10.244.0.12"], &["fd00:10:244::12"]],
        );
        world.add_service(
            "none",
            &["10.96.0.11", "fd00:10:96::b"],
            (Protocol::Udp, 53, 53),
            &[],
        );
        world.add_service(
            "amf",
            &["10.96.0.12"],
            (Protocol::Sctp, 36412, 36412),
            &[&["10.244.0.11", "10.244.0.12"]],
        );
        world.add_service(
            "outside",
            &["10.96.0.13", "fd00:10:96::d"],
            (Protocol::Tcp, 443, 6443),
            &[&["198.18.9.9"], &["fd00:198:9::9"]],
        );
        let key = ("a".to_owned(), "amf".to_owned());
        world.index.services.get_mut(&key).unwrap().affinity = Some(86_400);
        world
    }

    fn add_service(
        &mut self,
        name: &str,
        vips: &[&str],
        (protocol, port, target): (Protocol, u16, u16),
        slices: &[&[&str]],
    ) {
        let key = ("a".to_owned(), name.to_owned());
        let entry = ServiceEntry {
            uid: name.into(),
            cluster_ips: ips(vips),
            ports: vec![ServicePortEntry {
                name: "p".into(),
                protocol,
                port,
            }],
            affinity: None,
            publish_not_ready: false,
            internal_local: false,
            external_local: false,
        };
        self.index.services.insert(key.clone(), entry);
        let entry = |addresses: &&[&str]| SliceEntry {
            ipv6: ips(addresses)[0].is_ipv6(),
            ports: vec![("p".into(), protocol, target)],
            endpoints: ips(addresses)
                .into_iter()
                .map(|address| EndpointEntry {
                    address,
                    ready: true,
                    serving: true,
                    terminating: false,
                })
                .collect(),
        };
        let slices = slices
            .iter()
            .enumerate()
            .map(|(i, s)| (format!("{name}-{i}"), entry(s)));
        self.index.slices.insert(key, slices.collect());
    }

    /// The rows of every unit.
    pub(crate) fn rows(&self) -> Vec<DesiredRow> {
        let mut rows = Vec::new();
        for name in self.index.vpcs.keys() {
            rows.extend(vpc::desired(&self.index, name).unwrap());
        }
        for name in self.index.subnets.keys() {
            rows.extend(subnet::desired(&self.index, name).unwrap());
        }
        for (name, addresses) in NODES {
            rows.extend(node::desired(&self.index, name, mac(addresses), &ips(addresses)).unwrap());
        }
        for (ns, name) in self.index.services.keys() {
            rows.extend(service::desired(&self.index, ns, name).unwrap());
        }
        rows
    }

    /// Gives the pods their ports, bound on their chassis.
    pub(crate) fn plug_pods(&self, ovn: &Ovn) {
        for (pod, _, subnet, addresses) in PODS {
            let port = format!("a/{pod}/{subnet}");
            let all = format!("{} {}", mac(addresses), addresses.join(" "));
            ovn.nbctl(&[
                "lsp-add",
                subnet,
                &port,
                "--",
                "lsp-set-addresses",
                &port,
                &all,
                "--",
                "lsp-set-port-security",
                &port,
                &all,
            ]);
        }
        ovn.nbctl(&["--wait=sb", "sync"]);
        for (pod, chassis, subnet, _) in PODS {
            ovn.sbctl(&["lsp-bind", &format!("a/{pod}/{subnet}"), chassis]);
        }
    }
}

/// A packet from a pod or a node to an address, in `ovn-trace`'s language.
pub(crate) struct Packet(String);

pub(crate) fn packet(from: &str, to: &str) -> Packet {
    let pods = PODS
        .iter()
        .map(|(name, _, subnet, addresses)| (*name, *subnet, *addresses));
    let nodes = NODES
        .iter()
        .map(|(name, addresses)| (*name, "join", *addresses));
    let all: Vec<_> = pods.chain(nodes).collect();
    let (_, subnet, addresses) = *all.iter().find(|(name, ..)| *name == from).unwrap();
    let to: IpAddr = to.parse().unwrap();
    let family = if to.is_ipv4() { 4 } else { 6 };
    let source = ips(addresses)
        .into_iter()
        .find(|ip| ip.is_ipv4() == to.is_ipv4())
        .unwrap();
    // To a neighbour at once, to all others by the gateway.
    let neighbour = all
        .iter()
        .find(|(_, at, known)| *at == subnet && ips(known).contains(&to));
    let gateway = match subnet {
        "default" => "10.244.0.1",
        "plain" => "10.245.0.1",
        "blue" => "10.250.0.1",
        _ => "100.64.0.1",
    };
    let next = neighbour.map_or_else(|| mac(&[gateway]), |(_, _, known)| mac(known));
    let source_mac = mac(addresses);
    let flow = format!(
        "eth.src == {source_mac} && eth.dst == {next} && ip{family}.src == {source} && ip{family}.dst == {to} && ip.ttl == 64"
    );
    Packet(flow)
}

impl Packet {
    /// With a source address that is not its sender's.
    pub(crate) fn from(self, forged: &str) -> Self {
        let (before, rest) = self.0.split_once(".src == ").unwrap();
        let (mac, rest) = rest.split_once(".src == ").unwrap();
        let (_, after) = rest.split_once(" && ").unwrap();
        Self(format!("{before}.src == {mac}.src == {forged} && {after}"))
    }

    pub(crate) fn tcp(self, port: u16) -> String {
        format!("{} && tcp && tcp.src == 40000 && tcp.dst == {port}", self.0)
    }

    pub(crate) fn udp(self, port: u16) -> String {
        format!("{} && udp && udp.src == 40000 && udp.dst == {port}", self.0)
    }
}
