//! `outboard-engine`: keeps one qemu-storage-daemon per volume, whatever happens to other programs. And its client.
//!
//! The engine knows no volumes: a client gives it an id and a [`Recipe`], the QMP commands that make an empty daemon
//! serve. It keeps the recipe durably and runs it after every start of the daemon, so a daemon that was killed is back in
//! milliseconds with no help from anybody. A client that changes a running daemon changes the recipe first, in a way
//! that is right before and after its own QMP command.
//!
//! Daemons are no children that die with the engine: they are sessions of their own, and a restarted engine finds them by
//! the lock that each holds on a file of its directory. That lock is also what makes a second daemon for an id impossible.
//!
//! The library half is for clients: [`Client`], [`Watch`], [`Recipe`], [`Daemon`]. The rest is the program:
//! [`server`] (who asks) → [`registry`] (of which id) → [`keeper`] (one task per id, the only one that touches its
//! daemon) → [`launch`] (the daemon's first moments, in a process of their own), [`process`], [`recipe`].

mod client;
mod config;
mod first_client;
mod fuse;
mod keeper;
mod launch;
mod lock;
mod metrics;
mod place;
mod process;
mod readiness;
mod recipe;
mod record;
mod registry;
mod run;
mod server;
mod storage_daemon;
mod watch;
mod wire;

use std::process::ExitCode;

pub use client::{Client, Error};
pub use recipe::Recipe;
pub use watch::{Change, Watch};
pub use wire::{Daemon, Info, Put, State};

use config::{Command, Config};

/// Where the engine listens unless told otherwise.
pub const SOCKET: &str = "/run/outboard/engine/engine.sock";

/// Steps at which a test build (feature `failpoints`) can be held (variable `FAILPOINTS`) or dies by SIGKILL
/// (`OUTBOARD_KILL_AT`, the name of one step).
pub const FAILPOINTS: [&str; 11] = [
    "put::begun",
    "put::recorded",
    "put::replaced",
    "start::launching",
    "start::launched",
    "start::step",
    "start::served",
    "dead::seen",
    "remove::recorded",
    "remove::ended",
    "remove::cleared",
];

/// The program: flags, then the chosen part until it ends.
pub fn main() -> ExitCode {
    let config: Config = match daemon::args::parse() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let run = match config.command {
        // Not yet a program of many threads, and soon another program: no runtime, no log.
        Command::Launch(launch) => return launch::main(&launch),
        Command::Run(run) => run,
    };
    let common = run.common.clone();
    daemon::run::run("outboard-engine", &common, |stop| run::run(*run, stop))
}
