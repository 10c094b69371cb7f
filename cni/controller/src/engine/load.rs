//! The beginning of a term: what the database says of addresses, and whether it can be believed.

use super::Engine;
use super::commit::CURSORS;
use crate::index::{Index, PodEntry};
use crate::ipam::{Assigned, Port, Ports};
use crate::observed::Observed;
use crate::rows::{Problem, RowId, Unit};
use crate::units;
use api::names::{self, GATEWAY_IFNAME, PRIMARY_IFNAME};
use api::{PortFacts, Role, TAG_UID};
use ovsdb::{Atom, Row};
use std::collections::BTreeMap;

impl Engine {
    /// Starts from the database, or, if nobody else has written to it since the last term
    /// (`known`), from what is known.
    pub(super) async fn begin(&mut self, known: bool) {
        let mut problems = Vec::new();
        let shared = self.shared.clone();
        // All of the index is looked at below; what changes from here on is looked at after that.
        shared.take_dirty();
        if known {
            shared.read(|index| self.ports.sync(index));
        } else {
            self.ports = Ports::default();
            let rebuilds = shared.read(|index| {
                self.ports.sync(index);
                problems = load(&self.observed, &mut self.ports);
                if !index.settings.keep_reports {
                    freeze(index, &mut self.ports, &self.observed);
                }
                index.settings.keep_reports
            });
            if rebuilds {
                problems.extend(self.rebuild().await);
            }
        }
        if !known {
            self.blocked.clear();
            self.migrating.clear();
            self.queue.clear();
        }
        tracing::info!(
            rows = self.observed.len(),
            ports = self
                .ports
                .units()
                .map(|(_, ports)| ports.len())
                .sum::<usize>(),
            known,
            "this process writes the northbound database"
        );
        let mut of_units: BTreeMap<Unit, Vec<Problem>> = BTreeMap::new();
        for (unit, problem) in problems {
            of_units.entry(unit).or_default().push(problem);
        }
        for (unit, problems) in of_units {
            self.report_problems(&unit, problems);
        }
        for (subnet, why) in self.ports.all_frozen() {
            tracing::error!(subnet, "{why}");
        }
        self.check_allocation();
        self.push_waiting();
        self.push_everything();
    }

    /// Looks whether the reasons to refuse addresses still hold.
    pub(super) fn unfreeze(&mut self) {
        if self.ports.all_frozen().is_empty() {
            return;
        }
        let Self {
            shared,
            ports,
            observed,
            ..
        } = self;
        shared.read(|index| freeze(index, ports, observed));
        self.check_allocation();
    }

    fn check_allocation(&self) {
        let frozen = self.ports.all_frozen();
        self.checks.allocation.set(match frozen.values().next() {
            None => Ok(()),
            Some(why) => Err(why.clone()),
        });
    }
}

/// Rebuilds the ports from the record. The conflicts in it.
fn load(observed: &Observed, ports: &mut Ports) -> Vec<(Unit, Problem)> {
    for switch in observed.rows_in("Logical_Switch") {
        let name = switch.get("name").and_then(|name| name.as_str());
        let ids = switch.get("external_ids");
        let (Some(name), Some(ids)) = (name, ids) else {
            continue;
        };
        for (v6, key) in [false, true].into_iter().zip(CURSORS) {
            let cursor = ids.get_str(key).and_then(|text| text.parse().ok());
            if let (Some(cursor), Some(pool)) = (cursor, ports.pool_mut(name)) {
                pool.restore(v6, cursor);
            }
        }
    }
    let mut problems = Vec::new();
    for row in observed.rows_in("Logical_Switch_Port") {
        let Some(unit) = observed.unit_of(row) else {
            continue;
        };
        if !matches!(unit, Unit::Pod { .. } | Unit::Node(_)) {
            continue;
        }
        let Some(port) = port(row) else {
            continue;
        };
        let lsp = port.lsp.clone();
        let twice = ports.load(unit.clone(), port);
        if let Some(ip) = twice.first() {
            let sentence = format!(
                "port {lsp} and another one both have {ip} in the northbound database: delete one of the two pods"
            );
            problems.push((unit, Problem::new("AddressConflict", sentence)));
        }
    }
    problems
}

/// A port as the record has it. Its name and UID are those of the row, not copies: there are many.
fn port(row: &Row) -> Option<Port> {
    let shared = |atom: &Atom| match atom {
        Atom::String(text) => Some(text.clone()),
        _ => None,
    };
    let lsp = shared(row.get("name")?.one()?)?;
    let text = |atom: &Atom| atom.as_str().map(str::to_owned);
    let marks = row.get("external_ids")?;
    let ids: BTreeMap<String, String> = marks
        .pairs()
        .filter_map(|(key, value)| Some((text(key)?, text(value)?)))
        .collect();
    let facts = PortFacts::decode(&ids)
        .inspect_err(|error| tracing::warn!(lsp = &*lsp, "port is written anew: {error}"))
        .ok()?;
    let (ifname, uid) = match &facts.role {
        Role::Pod(pod) => (pod.ifname.as_str(), shared(marks.get(TAG_UID)?)?),
        Role::Node(_) => (GATEWAY_IFNAME, "".into()),
    };
    Some(Port {
        ifname: ifname.into(),
        lsp,
        uid,
        subnet: facts.subnet.as_str().into(),
        assigned: Assigned {
            mac: facts.mac,
            ips: facts.ips.iter().map(ipnet::IpNet::addr).collect(),
        },
    })
}

/// Pods that have addresses of ours which the record does not know. (A machine's ports are one of its pods', and all of them have them.)
pub(super) fn unrecorded<'a>(
    index: &'a Index,
    ports: &'a Ports,
    observed: &'a Observed,
) -> impl Iterator<Item = (&'a (String, String), &'a PodEntry)> + 'a {
    let has_row = |ns: &str, vm: &str| {
        let port = names::pod_port(ns, vm, index.primary_subnet(ns), None);
        let id = RowId::new("Logical_Switch_Port", port);
        observed.find(&id).is_some()
    };
    index.pods.iter().filter(move |((ns, name), pod)| {
        !pod.reports.pod_ips.is_empty()
            && !ports
                .of(&Unit::pod(ns, name))
                .iter()
                .any(|port| *port.uid == *pod.uid)
            && !pod.vm.as_deref().is_some_and(|vm| has_row(ns, vm))
    })
}

/// Refuses addresses of subnets in which pods run that the record does not know: it was emptied,
/// or is behind, and would give out what they have.
fn freeze(index: &Index, ports: &mut Ports, observed: &Observed) {
    let mut lost: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    for ((ns, name), pod) in unrecorded(index, ports, observed) {
        let contains = |subnet: &str| {
            let entry = index.subnets.get(subnet)?;
            let layout = entry.layout.as_ref().ok()?;
            pod.reports
                .pod_ips
                .iter()
                .copied()
                .find(|ip| layout.cidr_of(*ip).is_some())
        };
        let primary = index.primary_subnet(ns);
        let all = std::iter::once(primary).chain(index.subnets.keys().map(String::as_str));
        if let Some((subnet, ip)) = all.filter_map(|s| Some((s, contains(s)?))).next() {
            let example = || (0, format!("{ns}/{name} with {ip}"));
            lost.entry(subnet).or_insert_with(example).0 += 1;
        }
        if pod.networks().is_none() {
            continue;
        }
        for interface in units::pod::interfaces(index, ns, pod).wanted {
            let ifname = interface.ifname.as_str();
            let subnet = index.subnets.get_key_value(&interface.subnet);
            if let Some((subnet, _)) = subnet.filter(|_| ifname != PRIMARY_IFNAME) {
                let example = || (0, format!("{ns}/{name}, interface {ifname}"));
                lost.entry(subnet).or_insert_with(example).0 += 1;
            }
        }
    }
    let sentences: BTreeMap<String, String> = lost
        .into_iter()
        .map(|(subnet, (count, example))| {
            let sentence = format!(
                "Subnet {subnet}: {count} running pods have addresses that the northbound database does not know ({example}): it was emptied or is behind. No address is given out. Restore the database from a backup, or start cni-controller once with --rebuild to take the addresses from the pods and their nodes"
            );
            (subnet.to_owned(), sentence)
        })
        .collect();
    ports.refreeze(sentences);
}
