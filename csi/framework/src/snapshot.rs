//! Snapshots, and groups of them.

use crate::identity::{GroupId, SnapshotId, VolumeId};

/// The contents of a volume at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// The name it was created by.
    pub name: String,
    /// Of which volume, which may be gone.
    pub volume: VolumeId,
    /// Bytes that a volume made from it has at least.
    pub size: u64,
    /// When, in milliseconds since 1970.
    pub created_ms: u64,
    /// The group that it is a member of, and is deleted with.
    pub group: Option<GroupId>,
}

/// Snapshots of several volumes, at one moment: writes that one host made one after the other are in it without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSnapshot {
    /// Its id.
    pub id: GroupId,
    /// The name it was created by.
    pub name: String,
    /// Its members, in the order in which the volumes were named.
    pub snapshots: Vec<Snapshot>,
    /// When, in milliseconds since 1970.
    pub created_ms: u64,
}

/// Which snapshots to list; all that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotFilter {
    /// The one with this id.
    pub id: Option<SnapshotId>,
    /// Those of this volume.
    pub volume: Option<VolumeId>,
}
