//! A host in the kernel's own namespaces, with a DPU at the far end of a real channel that answers fixed wirings.

mod auto;
mod dpu;
mod kills;
mod operations;
mod recovery;
mod world;
