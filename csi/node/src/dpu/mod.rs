//! `csi-node-dpu`: which volume may be on which host.
//!
//! It holds no state and no Kubernetes credential: which hosts it serves is a flag, and what is attached stands with `volume-attacher`,
//! which it asks. csi-controller attaches through it (`outboard.node.v1.HostVolumes`), and csi-node-host has a missing device brought
//! back (`HostAgent`).
//!
//! [`run`] (who listens where) → [`caller`] (who asks: the certificate says, never a field) → [`controller`], [`agent`] (what may be
//! asked) → [`attacher`] (who does it). A caller's deadline goes with it; codes of volume-attacher are passed on as they are.

mod agent;
mod attacher;
mod caller;
mod config;
mod controller;
mod exposure;
mod metrics;
mod run;

use std::process::ExitCode;

use config::{Command, Config};

/// The program: flags, then the services until it is told to end.
pub fn main() -> ExitCode {
    let config: Config = match daemon::args::parse() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let Command::Run(run) = config.command;
    let common = run.common.clone();
    daemon::run::run("csi-node-dpu", &common, |stop| run::run(*run, stop))
}
