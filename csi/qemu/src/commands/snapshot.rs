//! Overlays, and their merging (QAPI: block-core.json, transaction.json).

use serde::Serialize;

use super::{Done, command, none};

command! {
    /// Puts `overlay`, a node without backing ([`Node::over`](super::Node::over)`(None)`), over `node`: whoever used
    /// `node` uses the overlay from then on. Requests under way are finished first.
    BlockdevSnapshot = "blockdev-snapshot" -> Done {
        /// The node that is no longer written to.
        node: String,
        /// The node that takes its place.
        overlay: String,
    }

    /// Actions that are all done or all undone, with no request in between.
    Transaction = "transaction" -> Done {
        /// The actions.
        actions: Vec<Action>,
    }

    /// Starts a job that writes the images from `top_node` down to above `base_node` into `base_node`. If `top_node` is
    /// the active image the job gets ready and waits for [`JobComplete`](super::JobComplete). The merged nodes are then
    /// out of use, and stay open until they are deleted.
    BlockCommit = "block-commit" -> Done {
        /// The job's id.
        job_id: String,
        /// The root of the graph: the filter if there is one.
        device: String,
        /// The uppermost image that is written down. Without it that is `device`, filters included: a throttle filter
        /// would be dropped from the graph together with its limits.
        #[serde(skip_serializing_if = "none")]
        top_node: Option<String>,
        /// The image that is written to; the lowest if not given.
        #[serde(skip_serializing_if = "none")]
        base_node: Option<String>,
        /// The name of the backing file that the image above `top_node` gets into its header.
        #[serde(skip_serializing_if = "none")]
        backing_file: Option<String>,
        /// Bytes per second; 0 for no limit.
        #[serde(skip_serializing_if = "none")]
        speed: Option<u64>,
        /// A name for the filter node that the job puts over the top.
        #[serde(skip_serializing_if = "none")]
        filter_node_name: Option<String>,
        /// False keeps a job that is over until it is dismissed, so that nobody misses its error.
        auto_dismiss: bool,
    }

    /// Starts a job that copies into `device` what is below it, down to above `base_node`.
    BlockStream = "block-stream" -> Done {
        /// The job's id.
        job_id: String,
        /// The node that is written to.
        device: String,
        /// The node that stays as its backing; none if not given.
        #[serde(skip_serializing_if = "none")]
        base_node: Option<String>,
        /// The last node whose data is copied, instead of `base_node`.
        #[serde(skip_serializing_if = "none")]
        bottom: Option<String>,
        /// The name of the backing file for the header.
        #[serde(skip_serializing_if = "none")]
        backing_file: Option<String>,
        /// Bytes per second; 0 for no limit.
        #[serde(skip_serializing_if = "none")]
        speed: Option<u64>,
        /// A name for the filter node that the job puts over `device`.
        #[serde(skip_serializing_if = "none")]
        filter_node_name: Option<String>,
        /// As in [`BlockCommit`].
        auto_dismiss: bool,
    }

    /// Writes a backing file's name into an image's header; the graph is not changed.
    ChangeBackingFile = "change-backing-file" -> Done {
        /// The root of the chain.
        device: String,
        /// The node whose image is changed.
        image_node_name: String,
        /// The backing file's name.
        backing_file: String,
    }
}

/// One action of a [`Transaction`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Action {
    /// An overlay.
    BlockdevSnapshot(BlockdevSnapshot),
    /// A new dirty bitmap.
    BlockDirtyBitmapAdd(super::BlockDirtyBitmapAdd),
    /// A bitmap without bits.
    BlockDirtyBitmapClear(super::BlockDirtyBitmapClear),
    /// A bitmap that counts.
    BlockDirtyBitmapEnable(super::BlockDirtyBitmapEnable),
    /// A bitmap that counts no longer.
    BlockDirtyBitmapDisable(super::BlockDirtyBitmapDisable),
    /// Bitmaps merged.
    BlockDirtyBitmapMerge(super::BlockDirtyBitmapMerge),
    /// Fails, and so undoes the others.
    Abort {},
}
