//! `csi-node-dpu` over the whole chain of the card: volume-attacher, opi-bridge, outboard-engine, a real qemu-storage-daemon, FUSE and a loop
//! device. The other programs are those beside this one in the target directory.
#![expect(clippy::unwrap_used, reason = "tests end by it")]

mod chain;
mod identity;
mod world;
