//! From units to the rows that they should have: the pure functions, with IPAM between.

use super::Engine;
use crate::index::{Index, PodEntry};
use crate::ipam::{Assigned, Port, Ports, Wish};
use crate::observed::Observed;
use crate::published::Published;
use crate::rebuild::{self, Claim, Source};
use crate::rows::{DesiredRow, Problem, RowId, Unit};
use crate::units;
use crate::units::pod::Interface;
use api::Mac;
use api::names::{self, GATEWAY_IFNAME, JOIN_SUBNET};

/// A unit with everything that follows from what is known of it.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) unit: Unit,
    /// Its rows; none to leave them as they are.
    pub(super) rows: Option<Vec<DesiredRow>>,
    /// Ports whose addresses are free once the rows stand so.
    pub(super) released: Vec<Port>,
    /// What it cannot have.
    pub(super) problems: Vec<Problem>,
}

impl Prepared {
    fn new(unit: Unit, desired: Result<Vec<DesiredRow>, Problem>) -> Self {
        let (rows, problems) = match desired {
            Ok(rows) => (Some(rows), Vec::new()),
            Err(problem) => (None, vec![problem]),
        };
        Self {
            unit,
            rows,
            released: Vec::new(),
            problems,
        }
    }
}

impl Engine {
    /// Prepares the units, under one look at the index. Allocates.
    pub(super) fn prepare(&mut self, batch: Vec<Unit>) -> Vec<Prepared> {
        let Self {
            shared,
            ports,
            observed,
            published,
            ..
        } = self;
        shared.read(|index| {
            let mut look = Look {
                index,
                ports,
                observed,
                published,
            };
            batch.into_iter().map(|unit| look.unit(unit)).collect()
        })
    }
}

struct Look<'a> {
    index: &'a Index,
    ports: &'a mut Ports,
    observed: &'a Observed,
    published: &'a Published,
}

impl Look<'_> {
    fn unit(&mut self, unit: Unit) -> Prepared {
        if !self.index.wants(&unit) {
            return self.unwanted(unit);
        }
        let desired = match &unit {
            Unit::Vpc(name) => units::vpc::desired(self.index, name),
            Unit::Subnet(name) => units::subnet::desired(self.index, name),
            Unit::Service { ns, name } => units::service::desired(self.index, ns, name),
            Unit::Node(name) => self.node(&unit, name),
            Unit::Pod { ns, name } => {
                let key = (ns.clone(), name.clone());
                return match self.index.pods.get(&key) {
                    Some(pod) => {
                        let (ports, observed) = (&mut *self.ports, self.observed);
                        let interfaces =
                            pod_ports(self.index, ports, observed, self.published, &key, pod);
                        self.pod(unit, &key, pod, interfaces)
                    }
                    None => self.unwanted(unit),
                };
            }
        };
        Prepared::new(unit, desired)
    }

    /// A unit whose object is gone: all rows go, all addresses are given back.
    fn unwanted(&mut self, unit: Unit) -> Prepared {
        if let Unit::Subnet(name) = &unit {
            let holds = |ports: &[Port]| ports.iter().any(|port| *port.subnet == **name);
            if let Some((holder, _)) = self.ports.units().find(|(_, ports)| holds(ports)) {
                let problem = Problem::new(
                    "SubnetInUse",
                    format!(
                        "Subnet {name} is gone but {holder} still has an address of it: its rows stay until that is deleted"
                    ),
                );
                return Prepared::new(unit, Err(problem));
            }
        }
        let released = self.ports.of(&unit).to_vec();
        Prepared {
            unit,
            rows: Some(Vec::new()),
            released,
            problems: Vec::new(),
        }
    }

    fn node(&mut self, unit: &Unit, name: &str) -> Result<Vec<DesiredRow>, Problem> {
        units::node::place(self.index, name)?;
        let port = Port {
            ifname: GATEWAY_IFNAME.into(),
            lsp: names::node_port(name).into(),
            uid: "".into(),
            subnet: JOIN_SUBNET.into(),
            assigned: NOTHING,
        };
        let port = self.ports.ensure(unit, port, &Wish::default())?;
        units::node::desired(self.index, name, port.assigned.mac, &port.assigned.ips)
    }

    fn pod(
        &mut self,
        unit: Unit,
        (ns, name): &(String, String),
        pod: &PodEntry,
        interfaces: PodPorts,
    ) -> Prepared {
        let PodPorts { kept, problems } = interfaces;
        let rows = kept
            .iter()
            .map(|port| units::pod::row(self.index, ns, name, pod, port));
        let rows = Some(rows.collect());
        let present = self.ports.of(&unit).iter();
        let released = present
            .filter(|port| !kept.contains(port))
            .cloned()
            .collect();
        Prepared {
            unit,
            rows,
            released,
            problems,
        }
    }
}

/// Before IPAM has spoken.
const NOTHING: Assigned = Assigned {
    mac: Mac([0; 6]),
    ips: Vec::new(),
};

/// The ports that a pod has from now on.
pub(super) struct PodPorts {
    kept: Vec<Port>,
    pub(super) problems: Vec<Problem>,
}

/// Finds or allocates the ports of a pod.
pub(super) fn pod_ports(
    index: &Index,
    ports: &mut Ports,
    observed: &Observed,
    published: &Published,
    (ns, name): &(String, String),
    pod: &PodEntry,
) -> PodPorts {
    let unit = Unit::pod(ns, name);
    let interfaces = units::pod::interfaces(index, ns, pod);
    let mut result = PodPorts {
        kept: Vec::new(),
        problems: Vec::new(),
    };
    for interface in interfaces.wanted {
        let port = port(ns, name, pod, &interface);
        if let Some(problem) = held(index, observed, &unit, &port.lsp) {
            result.problems.push(problem);
            continue;
        }
        let claim = match index.settings.keep_reports {
            true => rebuild::claim(pod, &interface, published),
            false => Claim {
                source: Source::Request,
                wish: interface.wish,
            },
        };
        match ports.ensure(&unit, port, &claim.wish) {
            Ok(port) => result.kept.push(port),
            Err(problem) => result
                .problems
                .push(match claim.says(pod, &interface.ifname) {
                    Some(says) => {
                        let sentence = format!("{says}: {}", problem.sentence);
                        Problem::new(problem.reason, sentence)
                    }
                    None => problem,
                }),
        }
    }
    // What the pod already has it keeps, even if it could not have it now.
    let present: Vec<&Port> = ports
        .of(&unit)
        .iter()
        .filter(|port| *port.uid == *pod.uid && !result.kept.contains(port))
        .collect();
    let mut unchanged: Vec<Port> = Vec::new();
    for (ifname, problem) in interfaces.refused {
        let named = |port: &&&Port| ifname.as_deref().is_none_or(|name| *name == *port.ifname);
        let has: Vec<Port> = present
            .iter()
            .filter(named)
            .map(|port| (*port).clone())
            .collect();
        if has.is_empty() || ifname.is_none() {
            result.problems.push(problem);
        }
        unchanged.extend(has);
    }
    result.kept.extend(unchanged);
    result
}

/// The port of an interface, without addresses yet.
pub(super) fn port(ns: &str, name: &str, pod: &PodEntry, interface: &Interface) -> Port {
    Port {
        ifname: interface.ifname.as_str().into(),
        lsp: units::pod::port_name(ns, name, pod, interface).into(),
        uid: (*pod.uid).into(),
        subnet: interface.subnet.as_str().into(),
        assigned: NOTHING,
    }
}

/// Two pods of one virtual machine have one port, on one node at a time; it is whose it was first. So the target of a live
/// migration has none: it waits, KubeVirt gives up, and the machine goes on where it is.
pub(super) fn held(index: &Index, observed: &Observed, unit: &Unit, lsp: &str) -> Option<Problem> {
    let row = observed.find(&RowId::new("Logical_Switch_Port", lsp))?;
    let holder = observed.unit_of(row)?;
    (holder != *unit && index.wants(&holder)).then(|| {
        Problem::new(
            "PortHeld",
            format!(
                "port {lsp} belongs to {holder} of the same virtual machine: it gets it when that is gone; live migration is not supported, stop the machine and start it"
            ),
        )
    })
}
