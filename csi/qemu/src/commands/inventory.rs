//! What there is of block nodes (QAPI: block-core.json).

use serde::Deserialize;

/// A node as [`QueryNamedBlockNodes`](super::QueryNamedBlockNodes) tells it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NodeInfo {
    /// Its name.
    pub node_name: String,
    /// Its driver.
    pub drv: String,
    /// Its file, or `json:…`.
    pub file: String,
    /// Whether it refuses writes.
    pub ro: bool,
    /// The file below it.
    #[serde(default, rename = "backing_file")]
    pub backing_file: Option<String>,
    /// The image.
    pub image: NodeImage,
}

/// The image of a node.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NodeImage {
    /// Its size as a disk, in bytes.
    pub virtual_size: u64,
    /// The space that it takes, in bytes, where that is known.
    #[serde(default)]
    pub actual_size: Option<u64>,
    /// True if it was not closed in an orderly way.
    #[serde(default)]
    pub dirty_flag: Option<bool>,
}

/// What was read from and written to a node since it was made.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NodeStats {
    /// Its name.
    #[serde(default)]
    pub node_name: Option<String>,
    /// The counters.
    pub stats: Counters,
}

/// Counters of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Counters {
    /// Bytes read.
    pub rd_bytes: u64,
    /// Bytes written.
    pub wr_bytes: u64,
    /// Reads.
    pub rd_operations: u64,
    /// Writes.
    pub wr_operations: u64,
    /// Flushes.
    pub flush_operations: u64,
    /// Reads that failed.
    pub failed_rd_operations: u64,
    /// Writes that failed.
    pub failed_wr_operations: u64,
}
