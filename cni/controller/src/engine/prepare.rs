//! From units to the rows that they should have: the pure functions, with IPAM between.

use super::Engine;
use super::machine::{Course, Heir, Known, Part, Who};
use crate::index::{Index, PodEntry};
use crate::ipam::{Assigned, Port, Ports, Wish};
use crate::observed::Observed;
use crate::published::Published;
use crate::rebuild::{self, Claim, Source};
use crate::rows::{DesiredRow, Problem, Unit};
use crate::units;
use crate::units::pod::{Coming, Interface};
use api::Mac;
use api::names::{self, GATEWAY_IFNAME, JOIN_SUBNET};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A unit with everything that follows from what is known of it.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) unit: Unit,
    /// Its rows; none to leave them as they are.
    pub(super) rows: Option<Vec<DesiredRow>>,
    /// Ports whose addresses are free once the rows stand so.
    pub(super) released: Vec<Port>,
    /// Ports that it had, and another pod of the machine has.
    pub(super) handed_over: Vec<Handover>,
    /// How many of its ports are another pod's, too.
    pub(super) migrating: usize,
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
            handed_over: Vec::new(),
            migrating: 0,
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

    /// A unit whose object is gone: all rows go, all addresses are given back; but ports of a machine that its next pod takes over stay.
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
        let mut handed_over = Vec::new();
        for port in self.ports.of(&unit).to_vec() {
            if let Some(heir) = self.known().heir(&port) {
                handed_over.push(hand_over(self.ports, &unit, &port, heir));
            }
        }
        let left = self.known().taken_over(&unit);
        let released = self.ports.of(&unit).to_vec();
        Prepared {
            rows: Some(left.iter().map(|lsp| as_it_is(lsp)).collect()),
            unit,
            released,
            handed_over,
            migrating: 0,
            problems: Vec::new(),
        }
    }

    fn known(&self) -> Known<'_> {
        Known {
            index: self.index,
            observed: self.observed,
            ports: self.ports,
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
        let migrating = interfaces
            .kept
            .iter()
            .filter(|(_, coming)| coming.is_some());
        let migrating = migrating.count();
        let rows = interfaces.kept.iter().map(|(port, coming)| {
            units::pod::row(self.index, (ns, name), pod, port, coming.as_ref())
        });
        let left = self.known().taken_over(&unit);
        let rows = Some(rows.chain(left.iter().map(|lsp| as_it_is(lsp))).collect());
        let present = self.ports.of(&unit).iter();
        let released = present
            .filter(|port| !interfaces.has(port))
            .cloned()
            .collect();
        Prepared {
            unit,
            rows,
            released,
            handed_over: interfaces.gone,
            migrating,
            problems: interfaces.problems,
        }
    }
}

/// The row of a port in which nothing is to change.
fn as_it_is(lsp: &str) -> DesiredRow {
    DesiredRow::new("Logical_Switch_Port", lsp)
}

/// Before IPAM has spoken.
const NOTHING: Assigned = Assigned {
    mac: Mac([0; 6]),
    ips: Vec::new(),
};

/// The ports that a pod has from now on.
pub(super) struct PodPorts {
    /// And where they are coming to.
    kept: Vec<(Port, Option<Coming>)>,
    /// Those that another pod of the machine has taken over just now.
    gone: Vec<Handover>,
    pub(super) problems: Vec<Problem>,
}

impl PodPorts {
    fn has(&self, port: &Port) -> bool {
        self.kept.iter().any(|(kept, _)| kept == port)
    }

    /// Takes in a port that `who` has, wherever it is to be.
    fn follow(
        &mut self,
        (index, observed, ports): (&Index, &Observed, &mut Ports),
        who: Who<'_>,
        port: Port,
        interface: Option<&Interface>,
    ) {
        let known = Known {
            index,
            observed,
            ports,
        };
        match known.course(who, &port, interface) {
            Course::Stays(coming) => self.kept.push((port, coming)),
            Course::Goes(heir) => {
                let unit = Unit::pod(who.ns, who.name);
                self.gone.push(hand_over(ports, &unit, &port, heir));
            }
        }
    }
}

/// A port that another pod of a machine has taken over.
#[derive(Debug)]
pub(super) struct Handover {
    /// Whose it was.
    pub(super) from: Unit,
    /// Whose it is.
    pub(super) to: Unit,
    pub(super) lsp: Arc<str>,
}

fn hand_over(ports: &mut Ports, from: &Unit, port: &Port, heir: Heir) -> Handover {
    ports.hand_over(from, &heir.unit, &port.lsp, &heir.uid);
    Handover {
        from: from.clone(),
        to: heir.unit,
        lsp: port.lsp.clone(),
    }
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
        gone: Vec::new(),
        problems: Vec::new(),
    };
    let who = Who { ns, name, pod };
    for interface in interfaces.wanted {
        let port = port(ns, name, pod, &interface);
        let known = Known {
            index,
            observed,
            ports,
        };
        match known.part(who, &interface) {
            Part::Holder => {}
            Part::Beside => continue,
            Part::Refused(problem) => {
                result.problems.push(problem);
                continue;
            }
        }
        let claim = match index.settings.keep_reports {
            true => rebuild::claim(pod, &interface, published),
            false => Claim {
                source: Source::Request,
                wish: interface.wish.clone(),
            },
        };
        match ports.ensure(&unit, port, &claim.wish) {
            Ok(port) => result.follow((index, observed, ports), who, port, Some(&interface)),
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
    let present: Vec<Port> = ports
        .of(&unit)
        .iter()
        .filter(|port| *port.uid == *pod.uid && !result.has(port))
        .cloned()
        .collect();
    // A refusal of all of them may come beside one of its own.
    let mut followed = BTreeSet::new();
    for (ifname, problem) in interfaces.refused {
        let named = |port: &&Port| ifname.as_deref().is_none_or(|name| *name == *port.ifname);
        let has: Vec<Port> = present.iter().filter(named).cloned().collect();
        if has.is_empty() || ifname.is_none() {
            result.problems.push(problem);
        }
        for port in has {
            if !followed.insert(port.lsp.clone()) {
                continue;
            }
            result.follow((index, observed, ports), who, port, None);
        }
    }
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
