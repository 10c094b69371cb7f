//! What a path of kubelet's is: a mounted file system, a disk bound over a file, or something else.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::super::device::Numbers;
use super::{Mount, Table};

/// What is mounted at a path.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A file system on a disk.
    Filesystem(Mount),
    /// A disk's node in /dev.
    Disk(Mount, Numbers),
    /// Neither.
    Foreign(Mount),
}

impl Place {
    /// What is mounted at `path`. `None`: nothing.
    pub(crate) fn at(table: &Table, path: &Path) -> Option<Self> {
        let mount = table.top(path)?.clone();
        // What has no disk is /dev, or foreign: there a look does not wait for a disk.
        if mount.device.major != 0 {
            return Some(Self::Filesystem(mount));
        }
        let node = fs::symlink_metadata(path).ok();
        let node = node.filter(|node| node.file_type().is_block_device());
        Some(match node {
            Some(node) => Self::Disk(mount, Numbers::of(node.rdev())),
            None => Self::Foreign(mount),
        })
    }

    /// The mount.
    pub(crate) fn mount(&self) -> &Mount {
        match self {
            Self::Filesystem(mount) | Self::Disk(mount, _) | Self::Foreign(mount) => mount,
        }
    }

    /// The disk.
    pub(crate) fn disk(&self) -> Option<Numbers> {
        match self {
            Self::Filesystem(mount) => Some(mount.device),
            Self::Disk(_, numbers) => Some(*numbers),
            Self::Foreign(_) => None,
        }
    }
}
