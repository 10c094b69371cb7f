//! The trait.

use async_trait::async_trait;

use crate::error::Result;
use crate::export::{Access, Export, Host, Target};
use crate::identity::{GroupId, SnapshotId, VolumeId};
use crate::page::Page;
use crate::snapshot::{GroupSnapshot, Snapshot, SnapshotFilter};
use crate::volume::{CreateVolume, Qos, SizeRange, Volume};

/// What a backend can do beyond the minimum (create, delete, get, list, export, unexport).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools)]
pub struct Capabilities {
    /// Volumes grow.
    pub expand: bool,
    /// They grow while they are exported.
    pub expand_online: bool,
    /// Snapshots, and volumes from them.
    pub snapshots: bool,
    /// Volumes from volumes.
    pub clones: bool,
    /// Snapshots of several volumes at one moment.
    pub groups: bool,
    /// Limits that change while the volume is in use.
    pub qos: bool,
    /// A volume for several hosts at a time.
    pub multi: bool,
}

/// How much room there is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// All volumes that may still be promised together.
    pub available: u64,
    /// The largest single volume that would be accepted now.
    pub largest: u64,
    /// The smallest volume that can be made.
    pub smallest: u64,
}

/// How a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Nothing is wrong.
    Normal,
    /// A sentence with cause and remedy.
    Abnormal(String),
}

/// A storage system. Every call is idempotent: made again, also by another process after the first one was killed, it
/// ends as if it had been made once. A call whose future is dropped is carried on or undone, never left in between.
/// Calls for different objects do not wait for each other; one for an object that another call is busy with waits for a
/// moment, then answers [`Error::Busy`](crate::Error::Busy).
#[async_trait]
pub trait Backend: Send + Sync {
    /// The name in its ids: lower-case letters, digits, `-`.
    fn name(&self) -> &str;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Makes a volume, or returns the one of this name if it fits.
    ///
    /// # Errors
    /// `AlreadyExists` with what differs; `NotFound` of the source; `OutOfRange`; `NoSpace`; `Invalid`.
    async fn create(&self, volume: CreateVolume) -> Result<Volume>;

    /// Deletes a volume. One that is not there is no error. Its snapshots and clones live on.
    ///
    /// # Errors
    /// `InUse` while it is exported.
    async fn delete(&self, id: &VolumeId) -> Result<()>;

    /// The volume.
    ///
    /// # Errors
    /// `NotFound`.
    async fn get(&self, id: &VolumeId) -> Result<Volume>;

    /// Volumes in a fixed order; a token from a [`Page`] goes on behind it, whatever was made or deleted since.
    ///
    /// # Errors
    /// `Token`.
    async fn list(&self, max: usize, token: Option<&str>) -> Result<Page<Volume>>;

    /// Grows a volume, never shrinks it: a large enough one stays.
    ///
    /// # Errors
    /// `NotFound`, `OutOfRange`, `NoSpace`.
    async fn expand(&self, id: &VolumeId, size: SizeRange) -> Result<Volume>;

    /// Sets all limits, also of a volume in use.
    ///
    /// # Errors
    /// `NotFound`; `Invalid`, then nothing has changed.
    async fn modify(&self, id: &VolumeId, qos: Qos) -> Result<Volume>;

    /// Takes a snapshot, or returns the one of this name if it is of this volume.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, `NoSpace`, `OutOfRange` (too many).
    async fn snapshot(&self, name: &str, volume: &VolumeId) -> Result<Snapshot>;

    /// Deletes a snapshot. One that is not there is no error. Volumes made from it live on.
    ///
    /// # Errors
    /// `Invalid` for a member of a group.
    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()>;

    /// The snapshot.
    ///
    /// # Errors
    /// `NotFound`.
    async fn get_snapshot(&self, id: &SnapshotId) -> Result<Snapshot>;

    /// Snapshots, members of groups too; pages as in [`list`](Backend::list).
    ///
    /// # Errors
    /// `Token`.
    async fn list_snapshots(
        &self,
        filter: &SnapshotFilter,
        max: usize,
        token: Option<&str>,
    ) -> Result<Page<Snapshot>>;

    /// Takes snapshots of several volumes at one moment, all or none. Their writers pause for at most two seconds.
    ///
    /// # Errors
    /// As for [`snapshot`](Backend::snapshot); `Unavailable` when the writes could not be paused in time.
    async fn group_snapshot(&self, name: &str, volumes: &[VolumeId]) -> Result<GroupSnapshot>;

    /// Deletes a group and its snapshots. One that is not there is no error.
    ///
    /// # Errors
    /// `Busy`.
    async fn delete_group_snapshot(&self, id: &GroupId) -> Result<()>;

    /// The group.
    ///
    /// # Errors
    /// `NotFound`.
    async fn get_group_snapshot(&self, id: &GroupId) -> Result<GroupSnapshot>;

    /// How much room there is.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn capacity(&self) -> Result<Capacity>;

    /// Lets a host reach a volume. `multi` says that other hosts may have it at the same time.
    ///
    /// # Errors
    /// `NotFound`; `InUse` by another host, unless every export of it is `multi`; `AlreadyExists` for the same host with
    /// another access.
    async fn export(
        &self,
        id: &VolumeId,
        host: &Host,
        access: Access,
        multi: bool,
    ) -> Result<Target>;

    /// The fence: after Ok no I/O of that host reaches the volume, and none is under way. A volume or host that is not
    /// there is no error. Other hosts of the volume may see a pause.
    ///
    /// # Errors
    /// `Busy`, `Unavailable`, `Unknown`: the host may still reach the volume.
    async fn unexport(&self, id: &VolumeId, host: &str) -> Result<()>;

    /// Who may reach the volume, and who is connected.
    ///
    /// # Errors
    /// `NotFound`.
    async fn exports(&self, id: &VolumeId) -> Result<Vec<Export>>;

    /// Whether anything was ever written to a volume, or to what it was made from until then. `false` is a promise: no host
    /// has the volume, and every byte of it is zero because nothing else was ever stored; whoever gets it next loses nothing
    /// by formatting it. Where that can't be told the answer is `true`: while a host has it, and from a backend that does not
    /// know what was stored.
    ///
    /// # Errors
    /// `NotFound`; `Busy`, `Unavailable`: it can't be told now.
    async fn written(&self, id: &VolumeId) -> Result<bool>;

    /// How a volume is.
    ///
    /// # Errors
    /// `NotFound`.
    async fn health(&self, id: &VolumeId) -> Result<Health>;
}
