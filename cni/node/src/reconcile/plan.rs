//! What is to be removed or plugged again, given what is there. Pure.
//!
//! The kernel's link decides whether an attachment lives: it dies with the pod's namespace, whatever became of the
//! namespace's path or of the journal. A record without a link is of a sandbox that is gone; a link or a port without
//! a record was left by an ADD or DEL that did not end. Rows and links that are not ours are not even observed.
//!
//! An attachment that is a socket has no link: it lives as long as the namespace of its sandbox, and as long as it lives its directory
//! is mounted where Open vSwitch looks.
//!
//! An attachment of a host behind this DPU lives as long as its record: only the host knows of its end. Its representor is the
//! card's, and may vanish and come back: as another link, for which its port is to be plugged anew.

use std::collections::{BTreeMap, BTreeSet};

use ovsdb::Uuid;

use crate::attachment::{AttachmentId, End, Record};
use crate::dpu::representor::Plug;
use crate::vhostuser::order;

/// Everything of ours that is there, in the journal, in OVS and in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// The journal.
    pub(crate) records: Vec<Record>,
    /// OVS Interfaces with `outboard=pod`.
    pub(crate) ports: Vec<ObservedPort>,
    /// Host ends of veth pairs with names of ours.
    pub(crate) links: BTreeSet<String>,
    /// Sockets of attachments of this node.
    pub(crate) sockets: order::Observed,
    /// Links of the names that records of hosts' attachments give: representors that are there.
    pub(crate) representors: BTreeMap<String, Representor>,
}

/// A representor's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Representor {
    /// Its index.
    pub(crate) index: u32,
    /// Whether it is set up.
    pub(crate) up: bool,
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
    /// Index of the representor's link when it was plugged.
    pub(crate) link: Option<u32>,
    /// The vhost-user socket that it connects to.
    pub(crate) socket: Option<String>,
}

/// One step towards order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Remove a port from OVS, if that very row is still there.
    RemovePort(ObservedPort),
    /// Insert the port of a living attachment that OVS lost.
    Plug(Record),
    /// Set the representor of a plugged port up.
    SetUp(Record),
    /// Mount the directory of a living attachment's socket.
    Mount(Record),
    /// Remove a mount that no attachment needs.
    Unmount(String),
    /// Delete a link and its peer.
    RemoveLink(String),
    /// Drop a record, after everything else of it.
    Forget(AttachmentId),
}

impl Observed {
    /// Whether the attachment still is.
    fn alive(&self, record: &Record) -> bool {
        match &record.end {
            End::Representor(_) => true,
            End::VhostUser(_) => !self.sockets.ended.contains(&record.id),
            End::Veth | End::Tap(_) => self.links.contains(&record.id.host_link()),
        }
    }

    /// The link of a host's attachment, where it has one.
    fn representor(&self, record: &Record) -> Option<&Representor> {
        self.representors.get(&record.far()?.link)
    }

    /// Whether there is something to plug.
    fn pluggable(&self, record: &Record) -> bool {
        record
            .far()
            .is_none_or(|far| far.plug != Plug::System || self.representors.contains_key(&far.link))
    }

    /// Whether a port is as the attachment's is to be. While its representor is away it may stay.
    fn right(&self, port: &ObservedPort, record: &Record) -> bool {
        let of_this_link = self.representor(record).is_none_or(|link| {
            record.far().is_none_or(|far| far.plug != Plug::System) || port.link == Some(link.index)
        });
        let socket = record.socket().map(|socket| &socket.server_path);
        port.name == record.link()
            && port.iface_id == record.port.iface_id
            && port.socket.as_ref() == socket
            && of_this_link
    }
}

/// The steps, ports first: a port must not outlive its link, nor a record what it names.
pub(crate) fn plan(observed: &Observed) -> Vec<Action> {
    let alive = |record: &&Record| observed.alive(record);
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
        let right = held
            .get(&port.id)
            .is_some_and(|record| observed.right(port, record));
        // OVS indexes Interfaces by name, so a second right one cannot be; if it is, one goes.
        if !right || !plugged.insert(&port.id) {
            actions.push(Action::RemovePort(port.clone()));
        }
    }
    let living: Vec<&Record> = observed.records.iter().filter(alive).collect();
    let unmounted = |record: &&&Record| observed.sockets.unmounted.contains(&record.id);
    let missing = living.iter().filter(unmounted);
    actions.extend(missing.map(|record| Action::Mount((*record).clone())));
    for (id, record) in &held {
        let down = observed.representor(record).is_some_and(|link| !link.up);
        if !plugged.contains(*id) {
            if observed.pluggable(record) {
                actions.push(Action::Plug((*record).clone()));
            }
        } else if down {
            actions.push(Action::SetUp((*record).clone()));
        }
    }
    let owned: BTreeSet<String> = living
        .iter()
        .filter(|record| record.socket().is_none())
        .map(|record| record.id.host_link())
        .collect();
    let strays = observed.links.iter().filter(|link| !owned.contains(*link));
    actions.extend(strays.map(|link| Action::RemoveLink(link.clone())));
    let dead = observed.records.iter().filter(|record| !alive(record));
    actions.extend(dead.map(|record| Action::Forget(record.id.clone())));
    // After the records: one of them may be the last that needs a mount.
    let sockets = living.iter().filter_map(|record| record.socket());
    let needed: BTreeSet<&str> = sockets.map(|socket| socket.mount.as_str()).collect();
    let mounts = observed.sockets.mounts.iter();
    let unneeded = mounts.filter(|mount| !needed.contains(mount.as_str()));
    actions.extend(unneeded.map(|mount| Action::Unmount(mount.clone())));
    actions
}
