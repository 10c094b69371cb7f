//! The pods of a virtual machine share its ports: what each of them is to one. Pure.
//!
//! A port is one pod's at a time, the holder's. While the machine migrates the port's row names a second pod, the target; and when the
//! machine has arrived there, or the holder is gone, the next pod takes row and addresses over in one step, which is the holder's unit's to
//! plan. Nobody has to do anything at the right moment: what counts is who holds the port, whom its row names, which pods there are, and how
//! far the migration is. That the row names a pod is the proof that a migration to it was under way: a pod's own word is none.

use crate::index::{Index, PodEntry};
use crate::ipam::{Port, Ports, Wish};
use crate::observed::Observed;
use crate::rows::{Problem, RowId, Unit};
use crate::units::pod::{self, Coming, Interface};
use api::names::owner_of_port;
use api::{MigrationStage, MigrationTarget, TAG_TARGET_UID};
use ovsdb::Row;

/// What a pod is to the port of an interface that it asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// It has it, or may have it.
    Holder,
    /// It has it by the holder's row, or had it, or was to have it: no row of its own.
    Beside,
    /// It cannot have it.
    Refused(Problem),
}

/// What becomes of a port that a pod has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// It stays the pod's, and perhaps another one is to have it too.
    Stays(Option<Coming>),
    /// The machine has arrived at another pod, whose it is from now on.
    Goes(Heir),
}

/// Who takes a port over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heir {
    pub(super) unit: Unit,
    pub(super) uid: Box<str>,
}

/// A pod that looks at its ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'a> {
    pub(super) ns: &'a str,
    pub(super) name: &'a str,
    pub(super) pod: &'a PodEntry,
}

/// What there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) index: &'a Index,
    pub(super) observed: &'a Observed,
    pub(super) ports: &'a Ports,
}

impl<'a> Known<'a> {
    /// What `who` is to the port of its interface.
    pub(super) fn part(self, who: Who<'_>, interface: &Interface) -> Part {
        let Who { ns, name, pod } = who;
        if self.port_of(who, &interface.ifname).is_some() {
            return Part::Holder;
        }
        let vm = pod.vm.as_deref();
        if let Some((holder, port)) = vm.and_then(|vm| self.held(ns, vm, &interface.ifname, name)) {
            return self.beside(who, holder, port);
        }
        let lsp = pod::port_name(ns, name, pod, interface);
        let unit = self.row(&lsp).and_then(|row| self.observed.unit_of(row));
        match unit.filter(|unit| *unit != Unit::pod(ns, name)) {
            Some(unit) if self.index.wants(&unit) => Part::Refused(named_alike(&lsp, &unit)),
            Some(unit) => Part::Refused(super::report::waits_for(&unit)),
            None => match self.elder(who, &lsp) {
                Some(elder) => Part::Refused(super::report::waits_for(&elder)),
                None => Part::Holder,
            },
        }
    }

    /// What becomes of a port that `who` has; `interface` as it asks for it now, if it may have it.
    pub(super) fn course(self, who: Who<'_>, port: &Port, interface: Option<&Interface>) -> Course {
        if who.pod.vm.is_none() {
            return Course::Stays(None);
        }
        let from = (who.name, who.pod);
        let named = self
            .named(who.ns, port)
            .filter(|(name, _)| *name != who.name);
        let stage = named.map(|(_, pod)| self.index.stage(who.ns, pod));
        let target = match (named, stage) {
            (Some((name, pod)), Some(Some(MigrationStage::Succeeded))) => {
                return Course::Goes(heir(who.ns, name, pod));
            }
            // The migration was deleted, and one of the two pods will go: until then it is as it was.
            (Some(target), Some(None)) => Some(target),
            _ => {
                let named = named.map(|(name, _)| name);
                self.index.coming(who.ns, from, named).ok().flatten()
            }
        };
        Course::Stays(target.and_then(|target| self.coming(target, port, interface)))
    }

    /// Who is to have a port whose holder is gone. None: it may go.
    ///
    /// A machine that migrates keeps its addresses. One that is started anew keeps them unless it asks for others.
    pub(super) fn heir(self, port: &Port) -> Option<Heir> {
        let (ns, vm) = owner_of_port(&port.lsp)?;
        let lives = |pod: &PodEntry| self.index.stage(ns, pod) != Some(MigrationStage::Failed);
        let free = |name: &str, pod: &PodEntry| {
            let who = Who { ns, name, pod };
            lives(pod) && self.port_of(who, &port.ifname).is_none()
        };
        if let Some((name, pod)) = self.named(ns, port).filter(|(name, pod)| free(name, pod)) {
            return Some(heir(ns, name, pod));
        }
        let pods = self.index.pods_of(ns, vm);
        let (name, pod) = pods
            .filter(|(name, pod)| free(name, pod))
            .min_by_key(|(name, pod)| (pod.created, *name))?;
        let wanted = pod::interfaces(self.index, ns, pod).wanted;
        let same = |interface: &&Interface| {
            pod::port_name(ns, name, pod, interface) == *port.lsp && fits(port, &interface.wish)
        };
        wanted.iter().find(same).map(|_| heir(ns, name, pod))
    }

    /// Ports whose rows are still the unit's, and which another pod of the machine has taken over.
    pub(super) fn taken_over(self, unit: &Unit) -> Vec<String> {
        let rows = self.observed.rows_of(unit);
        let lsps = rows.filter_map(|row| {
            let is_port = row.table() == "Logical_Switch_Port";
            row.get("name").filter(|_| is_port)?.as_str()
        });
        let has = |unit: &Unit, lsp: &str| self.ports.of(unit).iter().any(|port| *port.lsp == *lsp);
        let others = |lsp: &str| {
            let (ns, vm) = owner_of_port(lsp)?;
            let mut pods = self
                .index
                .pods_of(ns, vm)
                .map(|(name, _)| Unit::pod(ns, name));
            pods.find(|other| other != unit && has(other, lsp))
        };
        lsps.filter(|lsp| !has(unit, lsp) && others(lsp).is_some())
            .map(str::to_owned)
            .collect()
    }

    /// What `who` is to a port that another pod of its machine has.
    fn beside(self, who: Who<'_>, holder: (&str, &PodEntry), port: &Port) -> Part {
        let Who { ns, name, pod } = who;
        let named = self.named(ns, port).map(|(name, _)| name);
        if named == Some(name) {
            return Part::Beside;
        }
        let under_way = self.index.stage(ns, pod) == Some(MigrationStage::UnderWay);
        match self.index.coming(ns, holder, named) {
            Ok(Some((target, _))) if target == name => Part::Beside,
            Ok(Some((target, _))) if under_way => Part::Refused(Problem::new(
                "MigrationRefused",
                format!(
                    "pod {ns}/{name} says that a machine is to migrate to it, and it is migrating to pod {ns}/{target}: delete the one that KubeVirt has not made"
                ),
            )),
            Err(problem) if under_way => Part::Refused(problem),
            // It is where the machine came from, or will not come to: KubeVirt ends it.
            _ if pod.created < holder.1.created => Part::Beside,
            _ if self.index.stage(ns, pod) == Some(MigrationStage::Failed) => Part::Beside,
            _ => Part::Refused(Problem::new(
                "PortHeld",
                format!(
                    "port {} belongs to pod {ns}/{}, and no VirtualMachineInstanceMigration under way says that its machine comes to this pod: it gets the port when that one is gone",
                    port.lsp, holder.0
                ),
            )),
        }
    }

    fn port_of(self, who: Who<'_>, ifname: &str) -> Option<&'a Port> {
        let mut ports = self.ports.of(&Unit::pod(who.ns, who.name)).iter();
        ports.find(|port| *port.ifname == *ifname && *port.uid == *who.pod.uid)
    }

    /// The other pod of a machine that has the port of an interface, in whichever subnet.
    fn held(
        self,
        ns: &str,
        vm: &str,
        ifname: &str,
        name: &str,
    ) -> Option<((&'a str, &'a PodEntry), &'a Port)> {
        let mut others = self
            .index
            .pods_of(ns, vm)
            .filter(|(other, _)| *other != name);
        others.find_map(|(name, pod)| {
            let port = self.port_of(Who { ns, name, pod }, ifname)?;
            Some(((name, pod), port))
        })
    }

    fn row(self, lsp: &str) -> Option<&'a Row> {
        self.observed.find(&RowId::new("Logical_Switch_Port", lsp))
    }

    /// The pod that the port's row names beside its holder.
    fn named(self, ns: &str, port: &Port) -> Option<(&'a str, &'a PodEntry)> {
        let ids = self.row(&port.lsp)?.get("external_ids")?;
        let uid = ids.get_str(TAG_TARGET_UID)?;
        let (_, vm) = owner_of_port(&port.lsp)?;
        let mut pods = self.index.pods_of(ns, vm);
        pods.find(|(_, pod)| *pod.uid == *uid)
    }

    /// Where nothing is written yet: the pod before whose port another one's would be written.
    fn elder(self, who: Who<'_>, lsp: &str) -> Option<Unit> {
        let Who { ns, name, pod } = who;
        self.index.stage(ns, pod)?;
        let others = self.index.pods_of(ns, pod.vm.as_deref()?);
        let elders = others.filter(|(other, entry)| *other != name && entry.created <= pod.created);
        let (elder, entry) = elders.min_by_key(|(name, pod)| (pod.created, *name))?;
        let wanted = pod::interfaces(self.index, ns, entry).wanted;
        let asks = |one: &Interface| pod::port_name(ns, elder, entry, one) == lsp;
        wanted.iter().any(asks).then(|| Unit::pod(ns, elder))
    }

    /// Where and as what the port comes to the target.
    ///
    /// A pod's kernel would answer for the machine before it is there, so its port is closed until the machine announces itself or has
    /// arrived. Behind a socket there is nobody before the machine, and one that announces itself does it by ARP, not RARP: what OVN waits
    /// for would not come from there.
    fn coming(
        self,
        (name, pod): (&str, &PodEntry),
        port: &Port,
        interface: Option<&Interface>,
    ) -> Option<Coming> {
        let silent = match interface {
            Some(interface) => !interface.vhost_user,
            // Its network is gone: what was is right.
            None => self.row(&port.lsp).is_none_or(|row| {
                let options = row.get("options");
                options.is_none_or(|options| options.get_str("activation-strategy").is_some())
            }),
        };
        Some(Coming {
            target: MigrationTarget {
                name: name.to_owned(),
                uid: pod.uid.to_string(),
            },
            chassis: self.index.place(&pod.node)?.chassis,
            silent,
        })
    }
}

fn heir(ns: &str, name: &str, pod: &PodEntry) -> Heir {
    Heir {
        unit: Unit::pod(ns, name),
        uid: pod.uid.clone(),
    }
}

fn fits(port: &Port, wish: &Wish) -> bool {
    let assigned = &port.assigned;
    wish.ips.iter().all(|ip| assigned.ips.contains(ip))
        && wish.mac.is_none_or(|mac| mac == assigned.mac)
}

fn named_alike(lsp: &str, holder: &Unit) -> Problem {
    Problem::new(
        "PortHeld",
        format!(
            "port {lsp} belongs to {holder}: a pod and a virtual machine of one namespace have one name; give one of them another name"
        ),
    )
}
