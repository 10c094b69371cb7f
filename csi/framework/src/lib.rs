//! The plug point for storage back ends.
//!
//! * [`Backend`] is what csi-controller asks of a storage system: volumes, snapshots, groups of snapshots, and who may
//!   reach a volume over the network. Every call may be repeated; every [`Error`] is one decision of the caller.
//! * [`identity`] says what a volume is called, and as what a host finds it.
//! * [`local`] is the embedded default: qcow2 images in a directory, one qemu-storage-daemon per exported volume.
//! * `conformance` (feature of that name) is the suite that any backend is run through.

mod backend;
mod capacity;
mod catalogue;
mod chain;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod export;
pub mod identity;
mod keyed;
pub mod local;
mod page;
mod plan;
mod snapshot;
mod state;
mod volume;

pub use backend::{Backend, Capabilities, Capacity, Health};
pub use error::{Error, Result};
pub use export::{Access, Export, Host, NbdAddress, Target};
pub use identity::{GroupId, SnapshotId, VolumeId};
pub use page::Page;
pub use snapshot::{GroupSnapshot, Snapshot, SnapshotFilter};
pub use volume::{CreateVolume, Qos, SizeRange, Source, Volume};
