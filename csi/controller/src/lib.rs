//! `csi-controller`: CSI Identity, Controller and GroupController over any storage backend.
//!
//! A call goes through three layers: `request` checks every field and is pure; the services (`identity`,
//! `controller`, `group`) carry it out under a `driver::Driver`; `status` alone says which gRPC code an error is.
//!
//! * **Volumes** are the backend's (`framework::Backend`). What this program itself keeps is in `record`: with which
//!   parameters a volume was made, and whether it may still be formatted.
//! * **Publishing** (`controller`): the volume is exported to the host, then csi-node-dpu attaches it there (`dpu`).
//!   The export is the fence: a host whose DPU does not answer is cut off at the target.
//! * **Nodes** (`nodes`): who they are and which csi-node-dpu serves them.
//!
//! Parameters of StorageClasses and VolumeAttributesClasses: `PARAMETERS.md`, made from `request::parameters`.

mod backends;
mod call;
mod config;
mod controller;
mod deadline;
mod dpu;
mod driver;
mod group;
mod identity;
mod locks;
mod metrics;
mod nodes;
mod places;
mod record;
mod request;
mod run;
mod status;

use std::process::ExitCode;

use config::{Command, Config};

/// Steps at which a test build (feature `failpoints`) can be held (variable `FAILPOINTS`) or dies by SIGKILL
/// (`OUTBOARD_KILL_AT`, the name of one step).
pub const FAILPOINTS: [&str; 10] = [
    "create::recorded",
    "create::made",
    "delete::deleted",
    "publish::exported",
    "publish::attached",
    "publish::recorded",
    "unpublish::recorded",
    "unpublish::detached",
    "unpublish::unexported",
    "expand::grown",
];

/// The program: flags, then the chosen part until it ends.
pub fn main() -> ExitCode {
    let config: Config = match daemon::args::parse() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let Command::Run(run) = config.command;
    // In a release build there are no failpoints, and this does nothing.
    let _failpoints = fail::FailScenario::setup();
    #[cfg(feature = "failpoints")]
    if let Ok(step) = std::env::var("OUTBOARD_KILL_AT")
        && let Err(why) = fail::cfg_callback(&step, die)
    {
        eprintln!("csi-controller: OUTBOARD_KILL_AT={step}: {why}");
        return ExitCode::FAILURE;
    }
    let common = run.common.clone();
    daemon::run::run("csi-controller", &common, |stop| run::run(*run, stop))
}

/// As `kill -9`: nothing is flushed, undone or dropped.
#[cfg(feature = "failpoints")]
fn die() {
    // It does not return, unless there is no such process: then nothing is left to end.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
}
