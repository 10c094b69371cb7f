//! `opi-bridge`: OPI (`opi_api.storage.v1`) and its complement (`outboard.card.v1`) in front of a card.
//!
//! * `service`: the wire; each call is joined by equal ones (`calls`) and goes on though its caller has gone.
//! * `bridge`, `fits`, `resource`, `objects`: the objects as wanted, compared, checked, on disk.
//! * `wanted`: what the objects together want of a volume; pure.
//! * `keep`: makes the card do it: at a call, after a restart, when the card tells that something was lost.
//! * `card`: the trait; every call of it is idempotent and takes all that is wanted of the volume, so a replay is the same call again.
//! * `card::linux`: `qemu-storage-daemon`s under `outboard-engine`, loop devices, a virtual machine's root ports.
//!
//! What a restart of the engine's daemon means to a host of the linux card: an NVMe function of a virtual machine waits. Behind a loop
//! device requests fail, and the device that is made in its place has to be opened anew. Behind a vhost-user socket requests that were under
//! way are never answered: a virtio-blk function is taken from the guest and given anew, as soon as the guest lets go of it. It is told
//! by `Watch` (`engine_restarted.lost`) and seen by `GetDevice`.

mod bridge;
mod calls;
mod card;
mod config;
mod fits;
mod keep;
mod objects;
mod resource;
mod run;
mod service;
mod volumes;
mod wanted;

use std::process::ExitCode;

use config::{Command, Config};

/// Steps at which a test build (feature `failpoints`) can be held (variable `FAILPOINTS`) or dies by SIGKILL
/// (`OUTBOARD_KILL_AT`, the name of one step).
pub const FAILPOINTS: [&str; 23] = [
    "create::recorded",
    "create::done",
    "update::recorded",
    "limits::recorded",
    "delete::recorded",
    "delete::undone",
    "delete::removed",
    "card::exposing",
    "card::recorded",
    "card::exporting",
    "card::exported",
    "card::standing",
    "card::unexposing",
    "card::undone",
    "card::withdrawn",
    "card::disconnected",
    "card::resizing",
    "card::growing",
    "loop::attaching",
    "loop::attached",
    "vm::plugging",
    "vm::plugged",
    "vm::unplugging",
];

/// The program: flags, then the chosen part until it ends.
pub fn main() -> ExitCode {
    let config: Config = match daemon::args::parse() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let Command::Linux(args) = config.command;
    let common = args.common.clone();
    daemon::run::run("opi-bridge", &common, |stop| run::run(*args, stop))
}
