//! What the catalogue of an image backend holds: live objects, and the files that they need.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::export::Access;
use crate::volume::{Qos, Source};

/// An image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct FileId(pub(crate) Uuid);

impl FileId {
    pub(crate) fn new() -> Self {
        Self(Uuid::new_v4())
    }
}

/// How an image file was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    /// What shows through where it has no data of its own.
    pub(crate) backing: Option<FileId>,
    /// A merge with the backing file is under way, or was cut off: the image may hold that one's data already, and rest on
    /// `onto`.
    #[serde(default)]
    pub(crate) merging: bool,
    /// On what it rests after the merge, if on anything: that file must stay.
    #[serde(default)]
    pub(crate) onto: Option<FileId>,
    /// Bytes it was made with.
    pub(crate) size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeRecord {
    pub(crate) name: String,
    pub(crate) size: u64,
    /// The size that its creation asked for: a repeated call is compared with it, not with what the volume grew to.
    pub(crate) created_size: u64,
    pub(crate) source: Source,
    pub(crate) qos: Qos,
    pub(crate) block_size: u32,
    /// Writes are answered before their tables are in the image.
    #[serde(default)]
    pub(crate) write_cache: bool,
    /// The file that takes its writes.
    pub(crate) top: FileId,
    pub(crate) exports: Vec<ExportRecord>,
    /// The TCP port of its NBD server, for as long as it is exported.
    pub(crate) port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExportRecord {
    pub(crate) host: String,
    pub(crate) dn: Option<String>,
    pub(crate) access: Access,
    pub(crate) multi: bool,
    /// The host uses the daemon itself, not NBD.
    pub(crate) same_node: bool,
    /// The export's name in NBD: of this export alone, so that a host that knew it can't come back by it.
    pub(crate) token: Uuid,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotRecord {
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
    pub(crate) volume: Uuid,
    pub(crate) size: u64,
    pub(crate) created_ms: u64,
    /// The file whose contents, with those behind it, it is.
    pub(crate) file: FileId,
}

/// A group holds its members, so that one write makes or forgets all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupRecord {
    pub(crate) name: String,
    pub(crate) created_ms: u64,
    pub(crate) members: Vec<SnapshotRecord>,
}

/// Everything, by UUID.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) volumes: BTreeMap<Uuid, VolumeRecord>,
    pub(crate) snapshots: BTreeMap<Uuid, SnapshotRecord>,
    pub(crate) groups: BTreeMap<Uuid, GroupRecord>,
    pub(crate) files: BTreeMap<FileId, FileRecord>,
    /// Files of operations under way, which nothing else names yet. Not durable: a killed operation is not finished.
    pub(crate) held: BTreeSet<FileId>,
}

/// One durable change, or one effect outside of the catalogue. Operations are lists of these; the program may die
/// between any two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Records a file: before it is made, or when its backing file has changed.
    File(FileId, FileRecord),
    /// Makes the image as recorded.
    Image(FileId),
    /// Records a volume.
    Volume(Uuid, VolumeRecord),
    /// Makes image and daemon of a volume as recorded.
    Converge(Uuid),
    /// As `Converge` for several at one moment: none takes a write while any has not switched.
    Together(Vec<Uuid>),
    /// Records a snapshot: it is acknowledged.
    Snapshot(SnapshotRecord),
    /// Records a group and its snapshots.
    Group(Uuid, GroupRecord),
    /// Forgets a volume.
    NoVolume(Uuid),
    /// Forgets a snapshot.
    NoSnapshot(Uuid),
    /// Forgets a group.
    NoGroup(Uuid),
    /// Removes the image.
    Unlink(FileId),
    /// Forgets a file.
    NoFile(FileId),
}

impl State {
    /// What a step changes in the catalogue.
    pub(crate) fn apply(&mut self, step: &Step) {
        match step.clone() {
            Step::File(id, file) => drop(self.files.insert(id, file)),
            Step::Volume(uuid, volume) => drop(self.volumes.insert(uuid, volume)),
            Step::Snapshot(snapshot) => drop(self.snapshots.insert(snapshot.uuid, snapshot)),
            Step::Group(uuid, group) => drop(self.groups.insert(uuid, group)),
            Step::NoVolume(uuid) => drop(self.volumes.remove(&uuid)),
            Step::NoSnapshot(uuid) => drop(self.snapshots.remove(&uuid)),
            Step::NoGroup(uuid) => drop(self.groups.remove(&uuid)),
            Step::NoFile(id) => drop(self.files.remove(&id)),
            Step::Image(_) | Step::Converge(_) | Step::Together(_) | Step::Unlink(_) => {}
        }
    }

    /// A snapshot, of a group or not, with its group.
    pub(crate) fn snapshot(&self, uuid: Uuid) -> Option<(&SnapshotRecord, Option<Uuid>)> {
        if let Some(snapshot) = self.snapshots.get(&uuid) {
            return Some((snapshot, None));
        }
        self.all_snapshots()
            .find(|(snapshot, _)| snapshot.uuid == uuid)
    }

    /// All snapshots, those of groups with their group.
    pub(crate) fn all_snapshots(&self) -> impl Iterator<Item = (&SnapshotRecord, Option<Uuid>)> {
        let members = self
            .groups
            .iter()
            .flat_map(|(uuid, group)| group.members.iter().map(|member| (member, Some(*uuid))));
        self.snapshots.values().map(|s| (s, None)).chain(members)
    }

    /// What all volumes together promise, in bytes.
    pub(crate) fn promised(&self) -> u64 {
        self.volumes.values().map(|volume| volume.size).sum()
    }
}
