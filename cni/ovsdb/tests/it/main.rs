//! The client against real ovsdb-servers, each started by the test that needs it.
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod diff;
mod liveness;
mod proxy;
mod raft;
mod replica;
mod server;
mod tls;
mod transact;
