//! What `qemu-img` reports.

use std::path::PathBuf;

use serde::Deserialize;

/// An image.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Info {
    /// Its file.
    pub filename: PathBuf,
    /// `qcow2`, `raw`, …
    pub format: String,
    /// Its size as a disk, in bytes.
    pub virtual_size: u64,
    /// The space that its file takes, in bytes.
    pub actual_size: u64,
    /// Bytes of a cluster.
    #[serde(default)]
    pub cluster_size: Option<u64>,
    /// True if it was not closed in an orderly way; QEMU repairs it when it opens it for writing.
    #[serde(default)]
    pub dirty_flag: bool,
    /// The image below it, as its header names it.
    #[serde(default)]
    pub backing_filename: Option<PathBuf>,
    /// The same as a path from the root.
    #[serde(default)]
    pub full_backing_filename: Option<PathBuf>,
    /// The format of the image below it, as the header has it.
    #[serde(default)]
    pub backing_filename_format: Option<String>,
}

/// Space, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Measure {
    /// What is needed now.
    pub required: u64,
    /// What is needed once every block is written.
    pub fully_allocated: u64,
}

/// The state of a qcow2 image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Check {
    /// Damage: data is or may get lost.
    #[serde(default)]
    pub corruptions: u64,
    /// Clusters that nothing refers to: lost space, nothing else. A killed daemon leaves some.
    #[serde(default)]
    pub leaks: u64,
    /// What could not be checked.
    #[serde(default)]
    pub check_errors: u64,
}

impl Check {
    /// Whether the data is whole.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.corruptions == 0 && self.check_errors == 0
    }
}
