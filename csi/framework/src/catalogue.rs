//! The catalogue on disk: one small JSON file per object, and all of it in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use journal::Journal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::state::{FileId, FileRecord, GroupRecord, SnapshotRecord, State, Step, VolumeRecord};

/// The catalogue's directories are locked while it lives: two programs can't have one.
#[derive(Debug)]
pub(crate) struct Catalogue {
    volumes: Journal<VolumeRecord>,
    snapshots: Journal<SnapshotRecord>,
    groups: Journal<GroupRecord>,
    files: Journal<FileRecord>,
    state: Mutex<State>,
}

/// Files that no object names yet, kept from the sweep until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    catalogue: Arc<Catalogue>,
    files: Vec<FileId>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.catalogue.state();
        for file in &self.files {
            state.held.remove(file);
        }
    }
}

impl Catalogue {
    /// Opens the catalogue below `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Self, journal::Error> {
        let boot = journal::boot_id()?;
        let volumes = Journal::open(dir.join("volumes"), &boot)?;
        let snapshots = Journal::open(dir.join("snapshots"), &boot)?;
        let groups = Journal::open(dir.join("groups"), &boot)?;
        let files = Journal::open(dir.join("files"), &boot)?;
        let state = State {
            volumes: read(&volumes),
            snapshots: read(&snapshots),
            groups: read(&groups),
            files: read(&files)
                .into_iter()
                .map(|(uuid, file)| (FileId(uuid), file))
                .collect(),
            held: Default::default(),
        };
        for file in state.missing() {
            tracing::warn!(
                file = %file.0,
                "an image is in use that has no record in {}: nothing is removed until it has one again",
                dir.join("files").display()
            );
        }
        Ok(Self {
            volumes,
            snapshots,
            groups,
            files,
            state: Mutex::new(state),
        })
    }

    /// Without records that could not be read, or are missing: else nobody knows what the files belong to, and none may be deleted.
    pub(crate) fn is_whole(&self) -> bool {
        self.volumes.quarantined().is_empty()
            && self.snapshots.quarantined().is_empty()
            && self.groups.quarantined().is_empty()
            && self.files.quarantined().is_empty()
            && self.state().missing().next().is_none()
    }

    /// Everything, for a moment.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // No step leaves a half-made change when it panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps new files from the sweep.
    pub(crate) fn hold(self: &Arc<Self>, files: Vec<FileId>) -> Held {
        self.state().held.extend(&files);
        Held {
            catalogue: Arc::clone(self),
            files,
        }
    }

    /// Makes a step's change durable, then visible. Blocks on the disk.
    pub(crate) fn record(&self, step: &Step) -> Result<(), journal::Error> {
        match step {
            Step::File(id, file) => put(&self.files, id.0, file)?,
            Step::Volume(uuid, volume) => put(&self.volumes, *uuid, volume)?,
            Step::Snapshot(snapshot) => put(&self.snapshots, snapshot.uuid, snapshot)?,
            Step::Group(uuid, group) => put(&self.groups, *uuid, group)?,
            Step::NoVolume(uuid) => drop(self.volumes.remove(&uuid.to_string())?),
            Step::NoSnapshot(uuid) => drop(self.snapshots.remove(&uuid.to_string())?),
            Step::NoGroup(uuid) => drop(self.groups.remove(&uuid.to_string())?),
            Step::NoFile(id) => drop(self.files.remove(&id.0.to_string())?),
            Step::Image(_) | Step::Converge(_) | Step::Together(_) | Step::Unlink(_) => {}
        }
        self.state().apply(step);
        Ok(())
    }
}

fn put<T>(journal: &Journal<T>, uuid: Uuid, value: &T) -> Result<(), journal::Error>
where
    T: Serialize + DeserializeOwned + Clone,
{
    let key = uuid.to_string();
    match journal.get(&key) {
        Some(_) => journal.update(&key, value.clone()),
        None => journal.insert(&key, value.clone()),
    }
    .map(drop)
}

fn read<T: Clone>(journal: &Journal<T>) -> BTreeMap<Uuid, T> {
    let records = journal
        .iter()
        .map(|(key, record)| Some((Uuid::try_parse(&key).ok()?, record.value.clone())));
    // A record's key is its file's name, and this program names files by UUIDs only.
    records.flatten().collect()
}
