//! `csi-node-dpu`: which volume may be on which host.
//!
//! It holds no state and no Kubernetes credential (only `csi-node-dpu identity` does): which hosts it serves is a flag, and what is attached stands with `volume-attacher`,
//! which it asks. csi-controller attaches through it (`outboard.node.v1.HostVolumes`), and csi-node-host has a missing device brought
//! back (`HostAgent`).
//!
//! [`run`] (who listens where) → [`tls`] (as whom) → [`caller`] (who asks: the certificate says, never a field) → [`controller`], [`agent`] (what may be
//! asked) → [`attacher`] (who does it). A caller's deadline goes with it; codes of volume-attacher are passed on as they are.

mod agent;
mod attacher;
mod caller;
mod config;
mod controller;
mod exposure;
mod identity;
mod metrics;
mod run;
mod tls;

use std::process::ExitCode;

use config::{Command, Config};

/// The program: flags, then the services until it is told to end.
pub fn main() -> ExitCode {
    let config: Config = match daemon::args::parse() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let common = config.command.common().clone();
    daemon::run::run("csi-node-dpu", &common, |stop| async move {
        match config.command {
            Command::Run(run) => Box::pin(run::run(*run, stop)).await,
            Command::Identity(identity) => identity.run(stop).await,
        }
    })
}
