//! What a node survives: cni-node, Open vSwitch and ovn-controller killed at any moment, and many pods at once.
//!
//! Every test ends with a sweep: no port, no link, no record is left of pods that are gone.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail; only helpers are not seen as tests"
)]

mod burst;
mod kills;
mod pods;
mod services;
mod waiting;
