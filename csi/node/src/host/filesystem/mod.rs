//! What lies on a disk, and how a file system comes there. Nothing here ever overwrites what it does not know to be empty.

mod blank;
mod check;
mod content;
mod format;
mod grow;
mod superblock;
mod ticket;

use std::fmt;

pub(crate) use check::check;
pub(crate) use content::{Content, content};
pub(crate) use format::{Fresh, format};
pub(crate) use grow::{grow, grow_unmounted, is_smaller, may_grow_mounted};
pub(crate) use ticket::Tickets;

/// The file systems that are made and mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    /// The one of a volume that does not say which.
    #[default]
    Ext4,
    /// For large files and many writers.
    Xfs,
}

impl Kind {
    /// The one that the kernel and blkid call so.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "ext4" => Some(Self::Ext4),
            "xfs" => Some(Self::Xfs),
            _ => None,
        }
    }

    /// The kernel's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
