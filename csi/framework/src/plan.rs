//! Operations as lists of steps. Intent is recorded before its effect; the record that acknowledges comes last.

use uuid::Uuid;

use crate::chain::Merge;
use crate::state::{FileId, FileRecord, GroupRecord, SnapshotRecord, State, Step, VolumeRecord};

/// Freezes the file that takes the volume's writes: a new one rests on it and takes them. The last step lets the writer
/// switch; until then the daemon may be on either file, and both are right.
fn freeze(state: &State, uuid: Uuid, new: FileId) -> Option<(FileId, [Step; 3])> {
    let volume = state.volumes.get(&uuid)?;
    let frozen = volume.top;
    let file = FileRecord {
        backing: Some(frozen),
        merging: false,
        onto: None,
        size: volume.size,
    };
    let volume = VolumeRecord {
        top: new,
        ..volume.clone()
    };
    let steps = [
        Step::File(new, file),
        Step::Image(new),
        Step::Volume(uuid, volume),
    ];
    Some((frozen, steps))
}

/// Makes `volume`, whose top is a new file, over `backing`.
pub(crate) fn create(uuid: Uuid, volume: VolumeRecord, backing: Option<FileId>) -> Vec<Step> {
    let (top, size) = (volume.top, volume.size);
    vec![
        Step::File(
            top,
            FileRecord {
                backing,
                merging: false,
                onto: None,
                size,
            },
        ),
        Step::Image(top),
        Step::Volume(uuid, volume),
    ]
}

/// Makes `volume` with the contents that the volume `source` has when its writer switches to the file `new`.
pub(crate) fn clone(
    state: &State,
    source: Uuid,
    new: FileId,
    uuid: Uuid,
    volume: VolumeRecord,
) -> Option<Vec<Step>> {
    let (frozen, freezing) = freeze(state, source, new)?;
    let mut steps = Vec::from(freezing);
    steps.push(Step::Converge(source));
    steps.extend(create(uuid, volume, Some(frozen)));
    Some(steps)
}

/// Takes a snapshot of a volume, whose writes go to the file `new` from then on.
pub(crate) fn snapshot(
    state: &State,
    volume: Uuid,
    new: FileId,
    uuid: Uuid,
    name: &str,
    created_ms: u64,
) -> Option<Vec<Step>> {
    let (file, freezing) = freeze(state, volume, new)?;
    let size = state.volumes.get(&volume)?.size;
    let mut steps = Vec::from(freezing);
    let name = name.to_owned();
    let record = SnapshotRecord {
        uuid,
        name,
        volume,
        size,
        created_ms,
        file,
    };
    steps.extend([Step::Converge(volume), Step::Snapshot(record)]);
    Some(steps)
}

/// Takes snapshots of several volumes at one moment: volume, its new file, the snapshot's UUID.
pub(crate) fn group(
    state: &State,
    uuid: Uuid,
    name: &str,
    members: &[(Uuid, FileId, Uuid)],
    created_ms: u64,
) -> Option<Vec<Step>> {
    let (mut made, mut switched, mut records) = (Vec::new(), Vec::new(), Vec::new());
    for (volume, new, snapshot) in members {
        let (file, [record, image, switch]) = freeze(state, *volume, *new)?;
        made.extend([record, image]);
        switched.push(switch);
        records.push(SnapshotRecord {
            uuid: *snapshot,
            name: format!("{name}/{volume}"),
            volume: *volume,
            size: state.volumes.get(volume)?.size,
            created_ms,
            file,
        });
    }
    let volumes = members.iter().map(|(volume, ..)| *volume).collect();
    let group = GroupRecord {
        name: name.to_owned(),
        created_ms,
        members: records,
    };
    made.extend(switched);
    made.extend([Step::Together(volumes), Step::Group(uuid, group)]);
    Some(made)
}

/// Before a merge: what the image may rest on from here on.
pub(crate) fn merging(state: &State, merge: &Merge) -> Option<Step> {
    let record = state.files.get(&merge.child)?.clone();
    Some(Step::File(
        merge.child,
        FileRecord {
            merging: true,
            onto: merge.onto,
            ..record
        },
    ))
}

/// After a merge: what it rests on.
pub(crate) fn merged(state: &State, merge: &Merge) -> Option<Step> {
    let record = state.files.get(&merge.child)?.clone();
    Some(Step::File(
        merge.child,
        FileRecord {
            backing: merge.onto,
            merging: false,
            onto: None,
            ..record
        },
    ))
}

/// Changes a volume's size, limits or exports.
pub(crate) fn change(uuid: Uuid, volume: VolumeRecord) -> Vec<Step> {
    vec![Step::Volume(uuid, volume), Step::Converge(uuid)]
}

#[cfg(test)]
mod tests;
