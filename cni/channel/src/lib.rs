//! How do a host and its DPU speak?
//!
//! gRPC over mutual TLS, `outboard.dpu.v1` (its .proto file has the rules). The host keeps one session ([`Link`]): Hello, its full set,
//! heartbeats; within it, it attaches, detaches and checks. The DPU answers ([`serve`]) and has [`Ports`] do the work.
//!
//! * **Who may.** The certificate says who calls, the `Dpu` object which host is served; both may change at run time. A session that the
//!   host has begun later ends the earlier one, and a call counts only in the current session and over its connection.
//! * **Dead or alive.** Heartbeats go both ways every 0.8 s. Who has heard nothing for 2.4 s by its own clock drops the connection, with all
//!   that waits for it: TCP would notice in minutes.
//! * **The host is not believed.** Every field is looked at ([`shape`]), sizes and numbers of calls are bounded; what is refused is
//!   counted and told ([`Refusal`]).
//! * **The full set is safe.** A set is taken while Attaches go on. Those that begin later wait for its answer, and what has left the
//!   host's set meanwhile is detached once more. The set that begins a session is not touched before all calls of the former one have ended.
//! * **Versions.** The older side's counts, features are those of both ([`hello`]).
//!
//! An error is a [`Failure`] from where it arose to kubelet.

mod code;
mod dpu;
pub mod epoch;
mod failure;
mod heartbeat;
pub mod hello;
mod host;
mod metrics;
pub mod shape;

pub use ::proto::dpu::v1 as proto;

pub use code::{DECODING_FAILURE, INVALID_CONFIG, INVALID_ENVIRONMENT, REFUSED, TRY_AGAIN_LATER};
pub use dpu::{HostState, Ports, Refusal, Server, serve};
pub use failure::Failure;
pub use heartbeat::{DEAD, INTERVAL};
pub use host::{Attaching, Link, LinkConfig, LinkState, Pairing};
pub use metrics::{DpuMetrics, HostMetrics};

#[cfg(test)]
mod tests;
