//! `csi-controller`: CSI Identity, Controller and GroupController over any storage backend.
//!
//! A call goes through three layers: `request` checks every field and is pure; the services (`identity`,
//! `controller`, `group`) carry it out under a `driver::Driver`; `status` alone says which gRPC code an error is.
//!
//! * **Volumes** are the backend's (`framework::Backend`). What this program itself keeps is in `record`: with which
//!   parameters a volume was made, and whether it may still be formatted.
//! * **Publishing** (`controller`): the volume is exported to the host, then csi-node-dpu attaches it there (`dpu`).
//!   The export is the fence: a host whose DPU does not answer is cut off at the target.
//! * **Nodes** (`nodes`): who they are and which csi-node-dpu serves them, from Kubernetes or from a file.
//! * **Certificates** (`certificates`): with the CA's key this program signs those of the nodes (`identity::sign`), and
//!   makes its own and the target's.
//!
//! Parameters of StorageClasses and VolumeAttributesClasses: `PARAMETERS.md`, made from `request::parameters`.

mod backends;
mod call;
mod certificates;
mod config;
mod controller;
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
pub const FAILPOINTS: [&str; 11] = [
    "create::recorded",
    "create::made",
    "delete::deleted",
    "publish::settled",
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
    let common = run.common.clone();
    daemon::run::run("csi-controller", &common, |stop| run::run(*run, stop))
}
