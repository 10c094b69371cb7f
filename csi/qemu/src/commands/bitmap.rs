//! Dirty bitmaps: which blocks changed (QAPI: block-core.json).

use super::{Done, command, none};

command! {
    /// Adds a bitmap to a node.
    BlockDirtyBitmapAdd = "block-dirty-bitmap-add" -> Done {
        /// The node.
        node: String,
        /// The bitmap.
        name: String,
        /// Bytes per bit, a power of two.
        #[serde(skip_serializing_if = "none")]
        granularity: Option<u32>,
        /// Whether the image keeps it (qcow2).
        #[serde(skip_serializing_if = "none")]
        persistent: Option<bool>,
        /// True does not count yet.
        #[serde(skip_serializing_if = "none")]
        disabled: Option<bool>,
    }

    /// Removes a bitmap.
    BlockDirtyBitmapRemove = "block-dirty-bitmap-remove" -> Done {
        /// The node.
        node: String,
        /// The bitmap.
        name: String,
    }

    /// Clears a bitmap.
    BlockDirtyBitmapClear = "block-dirty-bitmap-clear" -> Done {
        /// The node.
        node: String,
        /// The bitmap.
        name: String,
    }

    /// Lets a bitmap count.
    BlockDirtyBitmapEnable = "block-dirty-bitmap-enable" -> Done {
        /// The node.
        node: String,
        /// The bitmap.
        name: String,
    }

    /// Stops a bitmap from counting.
    BlockDirtyBitmapDisable = "block-dirty-bitmap-disable" -> Done {
        /// The node.
        node: String,
        /// The bitmap.
        name: String,
    }

    /// Adds the bits of bitmaps to another one of the same node.
    BlockDirtyBitmapMerge = "block-dirty-bitmap-merge" -> Done {
        /// The node.
        node: String,
        /// The bitmap that gets the bits.
        target: String,
        /// Those that are read.
        bitmaps: Vec<String>,
    }
}
