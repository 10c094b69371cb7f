//! What the steps are about.

use std::path::PathBuf;

use proto::csi::v1::VolumeCapability;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};

use super::Map;

/// How a volume is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The file system; `None`: as a raw disk.
    pub file_system: Option<&'static str>,
    /// By how many.
    pub mode: Mode,
    /// For reading alone: attached so, and published so.
    pub read_only: bool,
    /// Options of mount(8).
    pub flags: Vec<&'static str>,
}

impl Usage {
    /// With a file system, by one node.
    #[must_use]
    pub fn files(file_system: &'static str) -> Self {
        Self {
            file_system: Some(file_system),
            mode: Mode::SingleNodeWriter,
            read_only: false,
            flags: Vec::new(),
        }
    }

    /// As a raw disk, by one node.
    #[must_use]
    pub fn block() -> Self {
        Self {
            file_system: None,
            ..Self::files("")
        }
    }

    /// The same, in another access mode.
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The same, for reading alone.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self {
            read_only: true,
            ..self
        }
    }

    /// As CSI says it.
    #[must_use]
    pub fn capability(&self) -> VolumeCapability {
        let access = match self.file_system {
            None => AccessType::Block(BlockVolume {}),
            Some(file_system) => AccessType::Mount(MountVolume {
                fs_type: file_system.to_owned(),
                mount_flags: self.flags.iter().map(|&flag| flag.to_owned()).collect(),
                ..MountVolume::default()
            }),
        };
        VolumeCapability {
            access_type: Some(access),
            access_mode: Some(AccessMode {
                mode: self.mode.into(),
            }),
        }
    }
}

/// A volume, and how the steps use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Of CreateVolume.
    pub id: String,
    /// Its size when it was made.
    pub bytes: u64,
    /// Of CreateVolume.
    pub context: Map,
    /// May be changed between the steps.
    pub usage: Usage,
}

impl Volume {
    /// The same, used otherwise.
    #[must_use]
    pub fn with(self, usage: Usage) -> Self {
        Self { usage, ..self }
    }

    /// The part of the id that is its UUID.
    #[must_use]
    pub fn uuid(&self) -> &str {
        self.id.rsplit('.').next().unwrap_or(&self.id)
    }
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Of CreateSnapshot.
    pub id: String,
    /// The least size of what is made from it.
    pub bytes: u64,
}

/// A volume that a workload has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Of ControllerPublishVolume.
    pub context: Map,
    /// Where the workload has it, as the host sees it: a directory, or the file that is the raw disk.
    pub target: PathBuf,
    /// The same, as this process reaches it.
    pub seen: PathBuf,
}
