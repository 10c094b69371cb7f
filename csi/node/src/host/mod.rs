//! `csi-node-host`: CSI Identity and Node on a host.
//!
//! It holds no state: what is mounted stands in mountinfo, which disk is which volume in sysfs, and what is on a disk on the disk. Two kinds
//! of notes last until the next boot: which disk is being formatted, and which socket waits for its pod's volume.
//! It asks nobody but csi-node-dpu, and that only to repair a disk ([`repair`]); it holds no Kubernetes credential. What it was told in the publish context is looked for, and refused if the
//! disk itself says otherwise.
//!
//! [`service`] (what is asked; one call at a time per volume) → [`request`] (checked) → [`stage`], [`publish`], [`unpublish`],
//! [`unstage`], [`socket`], [`stats`], [`health`], [`expand`] (what is done) over [`device`] (disks), [`filesystem`] (what is on them) and [`mounts`] (the
//! kernel's table, and the few calls that change it).
//!
//! **fsGroup** is left to kubelet (`fsGroupPolicy: File`, no VOLUME_MOUNT_GROUP): ext4 and xfs have no mount option for a group, so a
//! driver would have to walk the files just as kubelet does, without its `OnRootMismatch`.

mod blocking;
mod child;
mod config;
mod device;
mod error;
mod expand;
mod filesystem;
mod health;
mod identity;
mod mounts;
mod node;
mod publish;
mod registration;
mod repair;
mod request;
mod run;
mod service;
mod socket;
mod stage;
mod stages;
mod stats;
mod unpublish;
mod unstage;

use std::process::ExitCode;

use config::{Command, Config};

/// Steps at which a test build (feature `failpoints`) can be held (variable `FAILPOINTS`) or dies by SIGKILL
/// (`OUTBOARD_KILL_AT`, the name of one step).
pub const FAILPOINTS: [&str; 20] = [
    "stage::begun",
    "stage::ticketed",
    "stage::formatted",
    "stage::unticketed",
    "stage::mounted",
    "publish::begun",
    "publish::made",
    "publish::halfway",
    "publish::bound",
    "unpublish::begun",
    "unpublish::unmounted",
    "unstage::begun",
    "unstage::unmounted",
    "expand::begun",
    "socket::noted",
    "socket::begun",
    "socket::made",
    "socket::bound",
    "socket::forgotten",
    "socket::unmounted",
];

/// The program: flags, then the service until it is told to end.
pub fn main() -> ExitCode {
    let config: Config = match daemon::args::parse() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let Command::Run(run) = config.command;
    let common = run.common.clone();
    daemon::run::run("csi-node-host", &common, |stop| run::run(*run, stop))
}
