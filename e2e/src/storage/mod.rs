//! Storage without a cluster: every program of it on one machine, for one host or several.
//!
//!     csi-controller → csi-node-dpu → volume-attacher → opi-bridge → outboard-engine → qemu-storage-daemon
//!                                                                        csi-node-host ↗ (loop device over FUSE)
//!
//! [`Chain`] starts them over unix sockets in a directory of its own, or with TLS between the hosts and the target; each host has a
//! mount namespace of its own. [`calls`] are the steps that kubelet and the sidecars do; [`sanity`] runs `csi-sanity`.
//!
//! The programs are those beside the running one: build them first (`make build`, or `cargo build --all-features -p engine
//! -p bridge -p attacher -p csi-node -p csi-controller`).

pub mod calls;
mod certificates;
mod chain;
mod configuration;
mod daemons;
mod host;
mod leaks;
mod loops;
mod namespace;
mod place;
mod program;
mod runtime;
pub mod sanity;

pub use calls::Calls;
pub use chain::{Chain, ChainConfig};
pub use daemons::Daemon;
pub use program::Program;
