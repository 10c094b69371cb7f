//! The disaster path: the addresses of running pods, before anything new is given out.

use super::Engine;
use super::load::unrecorded;
use super::machine::{Known, Part, Who};
use super::prepare::{pod_ports, port};
use crate::index::{Index, Place, PodEntry};
use crate::ipam::{Ports, Wish};
use crate::observed::Observed;
use crate::published::{self, Published, Sought};
use crate::rebuild::{Source, claim, reported};
use crate::rows::{Problem, Unit};
use crate::units;
use api::names::PRIMARY_IFNAME;

impl Engine {
    /// Takes the addresses of running pods from what they and their nodes report. What cannot be.
    pub(super) async fn rebuild(&mut self) -> Vec<(Unit, Problem)> {
        let shared = self.shared.clone();
        let sought = shared.read(|index| sought(index, &self.ports, &self.observed));
        let (published, mut problems) = if sought.is_empty() {
            Default::default()
        } else if let Some(chassis) = &self.chassis {
            let rows = published::read(chassis.client(), &sought, &self.checks.allocation).await;
            published::judge(&sought, Ok(&rows))
        } else {
            published::judge(&sought, Err("cni-controller was started without --sb."))
        };
        // Of a former term: interfaces whose addresses somebody else has are still refused.
        self.published.merge(published);
        let Self {
            ports,
            observed,
            published,
            ..
        } = self;
        problems.extend(shared.read(|index| {
            // Subnets that came while nodes were waited for.
            ports.sync(index);
            take(index, ports, observed, published)
        }));
        problems
    }
}

/// The interfaces whose addresses only the nodes may know.
fn sought(index: &Index, ports: &Ports, observed: &Observed) -> Vec<Sought> {
    let mut all = Vec::new();
    for ((ns, name), pod) in unrecorded(index, ports, observed) {
        if pod.networks().is_none() {
            continue;
        }
        let Some(Place { chassis, .. }) = index.place(&pod.node) else {
            continue;
        };
        for interface in units::pod::interfaces(index, ns, pod).wanted {
            let ifname = interface.ifname.as_str();
            if ifname != PRIMARY_IFNAME && reported(pod, ifname).is_none() {
                all.push(Sought {
                    unit: Unit::pod(ns, name),
                    uid: pod.uid.clone(),
                    lsp: units::pod::port_name(ns, name, pod, &interface),
                    ifname: interface.ifname,
                    node: pod.node.clone(),
                    chassis: chassis.clone(),
                });
            }
        }
    }
    all
}

/// All that one source says is taken before the next one is heard, and new addresses come last.
fn take(
    index: &Index,
    ports: &mut Ports,
    observed: &Observed,
    published: &Published,
) -> Vec<(Unit, Problem)> {
    let mut pods: Vec<_> = unrecorded(index, ports, observed)
        .map(|(key, pod)| (key.clone(), pod.clone()))
        .collect();
    // Who is older was there first, if two say that they have the same address.
    pods.sort_by(|(a, one), (b, other)| (one.created, a).cmp(&(other.created, b)));
    tracing::warn!(
        pods = pods.len(),
        "--rebuild: taking addresses from what pods and nodes report"
    );
    for source in [Source::Api, Source::Node, Source::Request] {
        for ((ns, name), pod) in &pods {
            claim_all(index, ports, observed, published, (ns, name, pod), source);
        }
    }
    let mut problems = Vec::new();
    for (key, pod) in pods {
        let unit = Unit::pod(&key.0, &key.1);
        let found = pod_ports(index, ports, observed, published, &key, &pod).problems;
        problems.extend(found.into_iter().map(|problem| (unit.clone(), problem)));
    }
    problems
}

/// Takes what the source says that the pod's interfaces have. What cannot be taken is said when all
/// its interfaces are looked at.
fn claim_all(
    index: &Index,
    ports: &mut Ports,
    observed: &Observed,
    published: &Published,
    (ns, name, pod): (&str, &str, &PodEntry),
    source: Source,
) {
    let unit = Unit::pod(ns, name);
    for interface in units::pod::interfaces(index, ns, pod).wanted {
        let claim = claim(pod, &interface, published);
        let port = port(ns, name, pod, &interface);
        let says_something = claim.source == source && claim.wish != Wish::default();
        let who = Who { ns, name, pod };
        let known = Known {
            index,
            observed,
            ports,
        };
        if says_something && known.part(who, &interface) == Part::Holder {
            let _ = ports.ensure(&unit, port, &claim.wish);
        }
    }
}
