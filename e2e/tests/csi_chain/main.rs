//! Storage from csi-controller to the disk that a pod writes to, every program in between: `csi-sanity`, and whole lives of volumes
//! with real I/O on several hosts.
//!
//! Every test ends with a sweep: nothing is left of volumes that are gone, and no log has a secret in it.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail; only helpers are not seen as tests"
)]

mod life;
mod repair;
mod sanity;
mod shared;
mod socket;
mod world;
