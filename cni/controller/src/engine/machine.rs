//! The pods of a virtual machine share its ports: what each of them is to one. Pure.
//!
//! A port's row is one pod's at a time, the holder's. While the machine migrates the row names a second pod, the target; and when the
//! machine has arrived, or the holder is gone, the next pod takes row and addresses over in one step. In between nobody has to do
//! anything at the right moment: what counts is who holds the row, which pods there are, and how far the migration is.

use crate::index::{Index, PodEntry};
use crate::ipam::{Port, Ports, Wish};
use crate::observed::Observed;
use crate::rows::{Problem, RowId, Unit};
use crate::units::pod::{self, Coming, Interface};
use api::names::owner_of_port;
use api::{MigrationStage, MigrationTarget};

/// What a pod is to a port.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// It has it, or may have it; and another pod is to have it too.
    Holder(Option<Coming>),
    /// It has it, and its machine is elsewhere: the row stays as it is until the next pod takes it over.
    Leaver,
    /// It takes it over.
    Heir {
        /// From this unit.
        from: Unit,
    },
    /// It has it too, by the holder's row; or it had it, or was to have it. No row of its own.
    Beside,
    /// It cannot have it.
    Refused(Problem),
}

/// A pod that looks at its ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'a> {
    pub(super) ns: &'a str,
    pub(super) name: &'a str,
    pub(super) pod: &'a PodEntry,
}

/// What `who` is to the port of its interface.
pub(super) fn part(
    index: &Index,
    observed: &Observed,
    ports: &Ports,
    who: Who<'_>,
    interface: &Interface,
) -> Part {
    let Who { ns, name, pod } = who;
    let me = Unit::pod(ns, name);
    let lsp = pod::port_name(ns, name, pod, interface);
    let row = observed.find(&RowId::new("Logical_Switch_Port", &lsp));
    let holder = row.and_then(|row| observed.unit_of(row));
    let arrived = || index.arrived(ns, (name, pod)).is_some();
    let Some(holder) = holder.or_else(|| waits_for(index, who)) else {
        // The row is lost, or was never written.
        return match arrived() {
            true => Part::Beside,
            false => Part::Holder(coming(index, who, interface)),
        };
    };
    if holder == me {
        return match arrived() {
            true => Part::Leaver,
            false => Part::Holder(coming(index, who, interface)),
        };
    }
    let Some((holder_name, held_by)) = entry(index, &holder) else {
        return match heir(index, ports, &holder, &lsp) {
            Some(heir) if heir == name => Part::Heir { from: holder },
            _ => Part::Refused(held(&lsp, &holder)),
        };
    };
    if pod.vm.is_none() || held_by.vm != pod.vm {
        return Part::Refused(held(&lsp, &holder));
    }
    let from = (holder_name, held_by);
    let is_me = |(other, _): (&str, &PodEntry)| other == name;
    if index.arrived(ns, from).is_some_and(is_me) {
        return Part::Heir { from: holder };
    }
    match index.coming(ns, from) {
        Ok(Some(target)) if is_me(target) => Part::Beside,
        Err(problem) if pod.migration.is_some() => Part::Refused(problem),
        // It is where the machine came from, or will not come to: KubeVirt ends it.
        _ if pod.created < held_by.created => Part::Beside,
        _ if index.stage(ns, pod) == Some(MigrationStage::Failed) => Part::Beside,
        _ => Part::Refused(held(&lsp, &holder)),
    }
}

/// The pod that is to have a port next whose holder is gone, or whose machine has left it. None: it may go.
///
/// A machine that migrated keeps its addresses. One that was started anew keeps them unless it asks for others.
pub(super) fn heir<'a>(
    index: &'a Index,
    ports: &Ports,
    holder: &Unit,
    lsp: &str,
) -> Option<&'a str> {
    let (ns, vm) = owner_of_port(lsp)?;
    let pods = || index.pods_of(ns, vm);
    let arrived =
        |(_, pod): &(&str, &PodEntry)| index.stage(ns, pod) == Some(MigrationStage::Succeeded);
    let last = |all: &mut dyn Iterator<Item = (&'a str, &'a PodEntry)>| {
        all.max_by_key(|(name, pod)| (pod.created, *name))
    };
    let first = |all: &mut dyn Iterator<Item = (&'a str, &'a PodEntry)>| {
        all.min_by_key(|(name, pod)| (pod.created, *name))
    };
    let migrated = last(&mut pods().filter(arrived));
    let (name, pod) = migrated.or_else(|| first(&mut pods()))?;
    let interfaces = pod::interfaces(index, ns, pod).wanted;
    let wanted = interfaces
        .iter()
        .find(|interface| pod::port_name(ns, name, pod, interface) == lsp)?;
    let of = |unit: &Unit| ports.of(unit).iter().find(|port| *port.lsp == *lsp);
    // Taken over already, and only the row is not written yet.
    let has = of(&Unit::pod(ns, name)).is_some();
    let fits = of(holder).is_some_and(|port| fits(port, &wanted.wish));
    (has || fits || migrated.is_some()).then_some(name)
}

fn fits(port: &Port, wish: &Wish) -> bool {
    let assigned = &port.assigned;
    wish.ips.iter().all(|ip| assigned.ips.contains(ip))
        && wish.mac.is_none_or(|mac| mac == assigned.mac)
}

/// Where nothing is written yet: the pod before whose ports a pod's would be written twice.
fn waits_for(index: &Index, who: Who<'_>) -> Option<Unit> {
    let vm = who.pod.vm.as_deref()?;
    index.stage(who.ns, who.pod)?;
    let others = index.pods_of(who.ns, vm);
    let (name, _) = others
        .filter(|(name, other)| *name != who.name && other.created <= who.pod.created)
        .min_by_key(|(name, other)| (other.created, *name))?;
    Some(Unit::pod(who.ns, name))
}

fn entry<'a>(index: &'a Index, unit: &'a Unit) -> Option<(&'a str, &'a PodEntry)> {
    let Unit::Pod { ns, name } = unit else {
        return None;
    };
    let pod = index.pods.get(&(ns.clone(), name.clone()))?;
    Some((name, pod))
}

/// Where and as what the port comes to the target.
///
/// A pod's kernel would answer for the machine before it is there, so its port is closed until the machine announces itself or has
/// arrived. Behind a socket there is nobody before the machine, and one that announces itself does it by ARP, not RARP: what OVN waits for
/// would not come from there.
fn coming(index: &Index, who: Who<'_>, interface: &Interface) -> Option<Coming> {
    let target = index.coming(who.ns, (who.name, who.pod)).ok().flatten();
    let (name, pod) = target?;
    Some(Coming {
        target: MigrationTarget {
            name: name.to_owned(),
            uid: pod.uid.to_string(),
        },
        chassis: index.place(&pod.node)?.chassis,
        silent: !interface.vhost_user,
    })
}

fn held(lsp: &str, holder: &Unit) -> Problem {
    Problem::new(
        "PortHeld",
        format!(
            "port {lsp} belongs to {holder}, and no VirtualMachineInstanceMigration under way says that its machine comes to this pod: it gets the port when that one is gone"
        ),
    )
}
