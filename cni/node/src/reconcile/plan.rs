//! What is to be removed or plugged again, given what is there. Pure.
//!
//! The kernel's link decides whether an attachment lives: it dies with the pod's namespace, whatever became of the
//! namespace's path or of the journal. A record without a link is of a sandbox that is gone; a link or a port without
//! a record was left by an ADD or DEL that did not end. Rows and links that are not ours are not even observed.

use std::collections::{BTreeMap, BTreeSet};

use ovsdb::Uuid;

use crate::attachment::{AttachmentId, Record};

/// Everything of ours that is there, in the journal, in OVS and in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// The journal.
    pub(crate) records: Vec<Record>,
    /// OVS Interfaces with `outboard=pod`.
    pub(crate) ports: Vec<ObservedPort>,
    /// Host ends of veth pairs with names of ours.
    pub(crate) links: BTreeSet<String>,
}

/// An OVS Interface of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObservedPort {
    /// The Interface's row.
    pub(crate) interface: Uuid,
    /// Its name: that of the link.
    pub(crate) name: String,
    /// Its iface-id: the logical port that it claims.
    pub(crate) iface_id: String,
    /// Its owner.
    pub(crate) id: AttachmentId,
}

/// One step towards order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Remove a port from OVS, if that very row is still there.
    RemovePort(ObservedPort),
    /// Insert the port of a living attachment that OVS lost.
    Plug(Record),
    /// Delete a link and its peer.
    RemoveLink(String),
    /// Drop a record, after everything else of it.
    Forget(AttachmentId),
}

/// The steps, ports first: a port must not outlive its link, nor a record what it names.
pub(crate) fn plan(observed: &Observed) -> Vec<Action> {
    let alive = |record: &&Record| observed.links.contains(&record.id.host_link());
    // Two sandboxes of one pod share an iface-id; the younger has taken the port over and keeps it.
    let mut holders: BTreeMap<&str, &Record> = BTreeMap::new();
    for record in observed.records.iter().filter(alive) {
        let holder = holders.entry(&record.port.iface_id).or_insert(record);
        if record.ordinal > holder.ordinal {
            *holder = record;
        }
    }
    let held: BTreeMap<&AttachmentId, &Record> = holders.values().map(|r| (&r.id, *r)).collect();
    let mut plugged = BTreeSet::new();
    let mut actions = Vec::new();
    for port in &observed.ports {
        let right = held.get(&port.id).is_some_and(|record| {
            port.name == record.id.host_link() && port.iface_id == record.port.iface_id
        });
        // OVS indexes Interfaces by name, so a second right one cannot be; if it is, one goes.
        if !right || !plugged.insert(&port.id) {
            actions.push(Action::RemovePort(port.clone()));
        }
    }
    let unplugged = held.iter().filter(|(id, _)| !plugged.contains(*id));
    actions.extend(unplugged.map(|(_, record)| Action::Plug((*record).clone())));
    let living: BTreeSet<String> = observed
        .records
        .iter()
        .filter(alive)
        .map(|record| record.id.host_link())
        .collect();
    let strays = observed.links.iter().filter(|link| !living.contains(*link));
    actions.extend(strays.map(|link| Action::RemoveLink(link.clone())));
    let dead = observed.records.iter().filter(|record| !alive(record));
    actions.extend(dead.map(|record| Action::Forget(record.id.clone())));
    actions
}
