//! Every CNI verb in every version, well and badly called, against the real plugin, the real daemon and real OVN.
//!
//! Tests that leave the nodes as they found them share one lab; those that stop parts of OVN have their own.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail; only helpers are not seen as tests"
)]

mod bad_input;
mod chained;
mod gc;
mod life;
mod missing;
mod multus;
mod takeover;
mod tampered;
mod traffic;
mod world;
