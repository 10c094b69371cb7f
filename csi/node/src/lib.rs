//! CSI on a node.
//!
//! [`dpu`] is the program `csi-node-dpu`: which volume may be on which host; it has them brought there.
//!
//! [`host`] is the program `csi-node-host`: CSI Identity and Node. It finds the disk that was attached for a volume,
//! formats it where that is allowed, mounts and binds it.

pub mod dpu;
pub mod host;
