//! What every long-running Outboard program does, and nothing that only one of them does.
//!
//! A `main` is three lines: [`args::parse`] its flags (which contain [`args::Common`]), [`run::run`] its async function
//! with a token that SIGTERM cancels, return the exit code. Inside, [`admin`] serves `/metrics`, `/healthz` and
//! `/readyz` from a registry and a [`readiness::Readiness`]; [`socket`] binds a unix socket that root alone reaches,
//! [`keyed`] has one lock per object, [`calls`] counts what a gRPC server is asked.

pub mod admin;
pub mod args;
pub mod calls;
mod failpoints;
pub mod keyed;
pub mod logging;
pub mod process;
pub mod readiness;
pub mod run;
pub mod socket;
