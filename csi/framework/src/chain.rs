//! Which files somebody needs, and which of the others can go or be merged away.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::state::{FileId, State, Step};

/// A file of which nobody knows, between two that are needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Merge {
    /// What rests on `gone`, and on `onto` afterwards.
    pub(crate) child: FileId,
    /// Nobody's file.
    pub(crate) gone: FileId,
    /// On what the child rests afterwards.
    pub(crate) onto: Option<FileId>,
    /// The child may take over what it gets from `gone`: nobody has it open, or only the daemon of the volume whose writes it takes.
    pub(crate) up: bool,
    /// `onto` may take over what `gone` has, in the daemon of this volume, the only one that has them open.
    pub(crate) down: Option<Uuid>,
    /// The volume whose writes the child takes, if it is not a frozen one.
    pub(crate) top_of: Option<Uuid>,
    /// Every volume whose contents the child is part of.
    pub(crate) volumes: Vec<Uuid>,
    /// Every snapshot whose contents the child is part of.
    pub(crate) snapshots: Vec<Uuid>,
}

impl State {
    /// The file and all that it rests on, from the top down.
    pub(crate) fn chain(&self, file: FileId) -> Vec<FileId> {
        let mut chain = vec![file];
        let mut next = self.files.get(&file).and_then(|record| record.backing);
        // A record that rests on itself can't come from this program; it must not hang it either.
        while let Some(file) = next.filter(|file| !chain.contains(file)) {
            chain.push(file);
            next = self.files.get(&file).and_then(|record| record.backing);
        }
        chain
    }

    /// Files that an object names, or an operation under way.
    fn named(&self) -> BTreeSet<FileId> {
        let volumes = self.volumes.values().map(|volume| volume.top);
        let snapshots = self.all_snapshots().map(|(snapshot, _)| snapshot.file);
        volumes
            .chain(snapshots)
            .chain(self.held.iter().copied())
            .collect()
    }

    /// Files that a volume, a snapshot or another file needs, and of which there is no record: never so, unless somebody took it away.
    pub(crate) fn missing(&self) -> impl Iterator<Item = FileId> {
        let volumes = self.volumes.values().map(|volume| volume.top);
        let snapshots = self.all_snapshots().map(|(snapshot, _)| snapshot.file);
        let backings = self.files.values().filter_map(|file| file.backing);
        let all = volumes.chain(snapshots).chain(backings);
        all.filter(|file| !self.files.contains_key(file))
    }

    /// Files that must stay.
    pub(crate) fn needed(&self) -> BTreeSet<FileId> {
        let mut needed = BTreeSet::new();
        for file in self.named() {
            let mut next = Some(file);
            while let Some(file) = next.filter(|file| needed.insert(*file)) {
                next = self.files.get(&file).and_then(|record| record.backing);
            }
        }
        needed
    }

    /// The steps that remove every file that nobody needs, children before what they rest on.
    pub(crate) fn sweep(&self) -> Vec<Step> {
        let needed = self.needed();
        let mut rest: BTreeMap<_, _> = self
            .files
            .iter()
            .filter(|(id, _)| !needed.contains(id))
            .map(|(id, record)| (*id, record.backing))
            .collect();
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let parents: BTreeSet<_> = rest.values().flatten().copied().collect();
            let leaves: Vec<_> = rest
                .keys()
                .filter(|id| !parents.contains(id))
                .copied()
                .collect();
            // Without leaves the records rest on each other in a ring: none of them is anything.
            let leaves = if leaves.is_empty() {
                rest.keys().copied().collect()
            } else {
                leaves
            };
            for id in leaves {
                rest.remove(&id);
                steps.extend([Step::Unlink(id), Step::NoFile(id)]);
            }
        }
        steps
    }

    /// What can be merged now; `busy` tells whether a volume has a daemon. A frozen child takes nothing over while one has it open;
    /// what nobody knows does, from what rests on it alone.
    pub(crate) fn merges(&self, busy: impl Fn(Uuid) -> bool) -> Vec<Merge> {
        let (named, needed) = (self.named(), self.needed());
        let mut children: BTreeMap<FileId, Vec<FileId>> = BTreeMap::new();
        for (id, record) in &self.files {
            if let Some(backing) = record.backing {
                children.entry(backing).or_default().push(*id);
            }
        }
        // Another child may rest on it already, though its record does not say so yet.
        let reserved: BTreeSet<_> = self.files.values().filter_map(|file| file.onto).collect();
        let within = |file: FileId, child: FileId| self.chain(file).contains(&child);
        let mut merges = Vec::new();
        for (&gone, only) in &children {
            let [child] = only[..] else { continue };
            let nobodys = !named.contains(&gone) && needed.contains(&gone);
            // Its own merge was cut off: it may hold what it is recorded to rest on. That one is ended first.
            let unsure = self.files.get(&gone).is_some_and(|file| file.merging);
            if !nobodys || unsure || reserved.contains(&gone) || self.held.contains(&child) {
                continue;
            }
            let top_of = self.volumes.iter().find(|(_, v)| v.top == child);
            let volumes: Vec<_> = self
                .volumes
                .iter()
                .filter(|(_, volume)| within(volume.top, child))
                .map(|(uuid, _)| *uuid)
                .collect();
            let held = self.held.iter().any(|file| within(*file, child));
            if top_of.is_none() && held {
                continue;
            }
            let onto = self.files.get(&gone).and_then(|record| record.backing);
            let served: Vec<_> = volumes.iter().copied().filter(|uuid| busy(*uuid)).collect();
            let alone = onto.is_some_and(|onto| {
                let mut others = self.files.iter().filter(|(id, _)| **id != child);
                !named.contains(&onto)
                    && children.get(&onto).is_some_and(|of| of.len() == 1)
                    && !others.any(|(_, file)| file.onto == Some(onto))
            });
            let up = top_of.is_some() || served.is_empty();
            let down = match served[..] {
                [only] if alone && !held => Some(only),
                _ => None,
            };
            if !up && down.is_none() {
                continue;
            }
            merges.push(Merge {
                child,
                gone,
                onto,
                up,
                down,
                top_of: top_of.map(|(uuid, _)| *uuid),
                volumes,
                snapshots: self
                    .all_snapshots()
                    .filter(|(snapshot, _)| within(snapshot.file, child))
                    .map(|(snapshot, _)| snapshot.uuid)
                    .collect(),
            });
        }
        // The lowest first: what moves down moves once.
        merges.sort_by_key(|merge| self.chain(merge.gone).len());
        merges
    }
}
