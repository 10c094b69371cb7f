//! Northbound rows as cni-controller writes them, for labs without one: a router, two subnets, pods' ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result};
use api::names::{self, DEFAULT_SUBNET, DEFAULT_VPC, PRIMARY_IFNAME};
use api::{Mac, PodPort, PortFacts, Role, Route};
use ipnet::IpNet;

use crate::central::Central;
use crate::shell;

/// The subnet of secondary interfaces.
pub const BLUE: &str = "blue";
/// A route that every first interface gets, beside the default one.
pub const EXTRA_ROUTE: &str = "10.96.0.0/16";

/// A router with the subnets `default` (10.244.0.0/16, fd00:10:244::/64) and [`BLUE`] (10.245.0.0/16, fd00:10:245::/64).
#[derive(Debug)]
pub struct LogicalNetwork {
    nbctl: Vec<String>,
    next: AtomicU16,
}

/// A pod's interface that is to be allocated.
#[derive(Debug, Clone)]
pub struct PodSpec {
    /// The pod's name; the namespace is `default`.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// The chassis that may bind it.
    pub chassis: String,
    /// The interface.
    pub ifname: String,
    /// `default` or [`BLUE`].
    pub subnet: &'static str,
    /// What the subnet says of the MTU.
    pub mtu: Option<u32>,
}

impl PodSpec {
    /// The first interface of a pod, in subnet `default`; its UID is made of its name.
    pub fn new(name: &str, chassis: &str) -> Self {
        Self {
            name: name.into(),
            uid: format!("uid-{name}"),
            chassis: chassis.into(),
            ifname: PRIMARY_IFNAME.into(),
            subnet: DEFAULT_SUBNET,
            mtu: None,
        }
    }

    /// A secondary interface of the same pod, in subnet [`BLUE`].
    #[must_use]
    pub fn secondary(&self, ifname: &str) -> Self {
        Self {
            ifname: ifname.into(),
            subnet: BLUE,
            ..self.clone()
        }
    }
}

/// An allocated interface.
#[derive(Debug, Clone)]
pub struct PodRow {
    /// Name of the logical switch port.
    pub port: String,
    /// Its external_ids.
    pub facts: PortFacts,
    /// Whose it is.
    pub spec: PodSpec,
}

impl PodRow {
    /// Its IPv4 address, without prefix.
    pub fn v4(&self) -> String {
        self.facts.ips[0].addr().to_string()
    }

    /// Its IPv6 address, without prefix.
    pub fn v6(&self) -> String {
        self.facts.ips[1].addr().to_string()
    }

    /// CNI_ARGS as containerd makes them.
    pub fn arguments(&self, container: &str) -> String {
        let PodSpec { name, uid, .. } = &self.spec;
        format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};\
             K8S_POD_INFRA_CONTAINER_ID={container};K8S_POD_UID={uid}"
        )
    }
}

impl LogicalNetwork {
    /// Writes router, switches and router ports.
    ///
    /// # Errors
    /// NB refuses.
    pub fn create(central: &Central) -> Result<Self> {
        let line = central.nbctl_line();
        let nbctl = line.split(' ').map(str::to_string);
        let network = Self {
            nbctl: nbctl.collect(),
            next: AtomicU16::new(10),
        };
        let mut words = vec!["lr-add".to_string(), DEFAULT_VPC.into()];
        for (subnet, octet) in [(DEFAULT_SUBNET, 244), (BLUE, 245)] {
            let (near, far) = (
                names::switch_router_port(subnet),
                names::router_port(DEFAULT_VPC, subnet),
            );
            let gateway = IpAddr::from([10, octet, 0, 1]);
            let text = format!(
                "-- ls-add {subnet} -- lrp-add {DEFAULT_VPC} {far} {mac} {gateway}/16 fd00:10:{octet}::1/64 \
                 -- lsp-add {subnet} {near} -- lsp-set-type {near} router -- lsp-set-addresses {near} router \
                 -- lsp-set-options {near} router-port={far}",
                mac = Mac::of(gateway),
            );
            words.extend(text.split(' ').map(str::to_string));
        }
        network.run(&words)?;
        Ok(network)
    }

    /// Allocates an interface and writes its port.
    ///
    /// # Errors
    /// As [`Self::schedule_all`].
    pub fn schedule(&self, spec: &PodSpec) -> Result<PodRow> {
        let mut rows = self.schedule_all(std::slice::from_ref(spec))?;
        rows.pop().context("one row for one interface")
    }

    /// Allocates interfaces and writes their ports in one transaction.
    ///
    /// # Errors
    /// NB refuses.
    pub fn schedule_all(&self, specs: &[PodSpec]) -> Result<Vec<PodRow>> {
        let rows: Vec<PodRow> = specs.iter().map(|spec| self.allocate(spec)).collect();
        self.write(&rows)?;
        Ok(rows)
    }

    /// Writes the ports of allocated interfaces, in one transaction.
    ///
    /// # Errors
    /// NB refuses.
    pub fn write(&self, rows: &[PodRow]) -> Result<()> {
        let mut words = Vec::new();
        for row in rows {
            words.extend(["--", "lsp-add", &row.facts.subnet, &row.port].map(str::to_string));
            words.extend(row_words(row));
        }
        self.run(&words)
    }

    /// Writes a port again, as it is now in `row`: another UID, another chassis, other facts.
    ///
    /// # Errors
    /// NB refuses.
    pub fn update(&self, row: &PodRow) -> Result<()> {
        let port = row.port.as_str();
        let clear = [
            "--",
            "clear",
            "logical_switch_port",
            port,
            "external_ids",
            "options",
        ];
        let words = clear.map(str::to_string).into_iter().chain(row_words(row));
        self.run(&words.collect::<Vec<_>>())
    }

    /// Allocates an interface and writes nothing.
    pub fn allocate(&self, spec: &PodSpec) -> PodRow {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let [high, low] = number.to_be_bytes();
        let octet: u16 = if spec.subnet == BLUE { 245 } else { 244 };
        let second = octet.to_be_bytes()[1];
        let v4 = Ipv4Addr::new(10, second, high, low);
        // What is read as hexadecimal stands for the same digits: fd00:10:244::….
        let third = octet / 100 * 256 + octet / 10 % 10 * 16 + octet % 10;
        let v6 = |host| Ipv6Addr::new(0xfd00, 0x10, third, 0, 0, 0, 0, host);
        let net = |address: IpAddr, prefix| {
            IpNet::new(address, prefix).expect("a prefix that the family has")
        };
        let primary = spec.ifname == PRIMARY_IFNAME;
        let gateway = Ipv4Addr::new(10, second, 0, 1);
        let route = Route {
            dst: EXTRA_ROUTE.parse().expect("a constant"),
            via: gateway.into(),
        };
        PodRow {
            port: names::pod_port(
                "default",
                &spec.name,
                spec.subnet,
                (!primary).then_some(spec.ifname.as_str()),
            ),
            facts: PortFacts {
                chassis: [spec.chassis.clone()].into(),
                host: None,
                role: Role::Pod(PodPort {
                    namespace: "default".into(),
                    name: spec.name.clone(),
                    uid: spec.uid.clone(),
                    ifname: spec.ifname.clone(),
                    target: None,
                }),
                subnet: spec.subnet.into(),
                mac: Mac::of(v4.into()),
                ips: vec![net(v4.into(), 16), net(v6(number).into(), 64)],
                gateways: vec![gateway.into(), v6(1).into()],
                routes: if primary { vec![route] } else { Vec::new() },
                mtu: spec.mtu,
                default_route: primary,
            },
            spec: spec.clone(),
        }
    }

    fn run(&self, words: &[String]) -> Result<()> {
        let argv: Vec<&String> = self.nbctl.iter().chain(words).collect();
        shell::run(&argv).map(drop)
    }
}

/// Everything of a port but its name, in ovn-nbctl's words.
fn row_words(row: &PodRow) -> Vec<String> {
    let PodRow { port, facts, spec } = row;
    let ips: Vec<String> = facts.ips.iter().map(|ip| ip.addr().to_string()).collect();
    let addresses = format!("{} {}", facts.mac, ips.join(" "));
    let mut words: Vec<String> = [
        "--",
        "lsp-set-addresses",
        port,
        &addresses,
        "--",
        "lsp-set-port-security",
        port,
        &addresses,
        "--",
        "set",
        "logical_switch_port",
        port,
    ]
    .map(str::to_string)
    .to_vec();
    let options = [
        ("requested-chassis", &spec.chassis),
        ("iface-id-ver", &spec.uid),
    ];
    words.extend(options.map(|(key, value)| format!("options:{key}={value:?}")));
    let ids = facts.encode();
    words.extend(
        ids.iter()
            .map(|(key, value)| format!("external_ids:{key:?}={value:?}")),
    );
    words
}
