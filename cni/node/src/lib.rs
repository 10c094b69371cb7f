//! The per-node daemon: plugs pods into OVS.
//!
//! Mode `default`: the pods' namespaces and OVS are on one machine. Mode `host`: the pods are here, their ports are on this host's
//! DPU ([`host`]). It holds no Kubernetes credential while it runs
//! (only `cni-node identity` does), and asks nobody on the way of an ADD: what a pod gets was written by cni-controller
//! when the pod was scheduled, and is followed in OVN's southbound database.
//!
//! An attachment: [`call`] (what is asked) → [`attach`], [`detach`], [`check`], [`gc`], [`status`] (what is done) over
//! [`southbound`], [`vswitch`], [`plumb`] and [`store`] (with whom), and [`reconcile`] (what a kill left); [`vhostuser`] is the kind
//! of interface that is a socket.
//! The node itself: [`chassis`], [`gateway`], [`vip`], and [`plugged`] (what is published for a disaster).

mod attach;
mod attachment;
mod call;
mod chassis;
mod check;
mod config;
mod detach;
mod dpu;
mod error;
mod gateway;
mod gc;
mod host;
mod metrics;
mod mode;
mod netlink;
mod netns;
mod node;
mod ovn_controller;
mod pairing;
mod plugged;
mod plumb;
mod reconcile;
mod rounds;
mod row;
mod rows;
mod run;
mod server;
mod southbound;
mod stages;
mod status;
mod store;
mod sysctl;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod under_way;
mod vacancies;
mod vhostuser;
mod vip;
mod vswitch;
mod wait;
mod wiring;

use std::process::ExitCode;

use config::{Command, Config};

pub use dpu::FAILPOINTS as DPU_FAILPOINTS;

/// Steps at which a test build (feature `failpoints`) can be held (variable `FAILPOINTS`) or dies by SIGKILL
/// (`OUTBOARD_KILL_AT`, the name of one step).
pub const FAILPOINTS: [&str; 7] = [
    "add::begun",
    "add::linked",
    "add::plugged",
    "add::installed",
    "del::begun",
    "del::unplugged",
    "del::forgotten",
];

/// The same for interfaces of kind `vhostuser`, beside those of every DEL.
pub const VHOST_FAILPOINTS: [&str; 10] = [
    "vhost::begun",
    "vhost::directory",
    "vhost::staged",
    "vhost::published",
    "vhost::mounted",
    "vhost::plugged",
    "vhost::installed",
    "vhost::told",
    "vhost::withdrawn",
    "vhost::forgotten",
];

/// The same for the taps that machines get on a node without DPDK.
pub const TAP_FAILPOINTS: [&str; 12] = [
    "tap::begun",
    "tap::recorded",
    "tap::linked",
    "tap::bridged",
    "tap::made",
    "tap::joined",
    "tap::plugged",
    "tap::installed",
    "tap::told",
    "tap::unlinked",
    "tap::removed",
    "tap::withdrawn",
];

/// The same for mode `host`.
pub const HOST_FAILPOINTS: [&str; 7] = [
    "host::intent",
    "host::wired",
    "host::moved",
    "host::installed",
    "host::del_begun",
    "host::returned",
    "host::forgotten",
];

/// The program: flags, then the chosen part until it ends.
pub fn main() -> ExitCode {
    let config: Config = match daemon::args::parse() {
        Ok(config) => config,
        Err(code) => return code,
    };
    if let Err(error) = config.check() {
        // Nothing can be done for a closed terminal, and the exit code tells.
        let _ = error.print();
        return ExitCode::from(daemon::args::EXIT_USAGE);
    }
    let common = config.command.common().clone();
    daemon::run::run("cni-node", &common, |stop| async move {
        match config.command {
            Command::Run(args) => run::run(*args, stop).await,
            Command::Identity(asking) => asking.args.run(stop).await,
        }
    })
}
