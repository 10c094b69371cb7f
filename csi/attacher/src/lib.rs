//! `volume-attacher`: brings volumes to the hosts of one card, and takes them away.
//!
//! It knows neither Kubernetes nor any card's kind: it asks `opi-bridge`, in OPI's words and in those of `outboard.card.v1`. An
//! attachment is (host, volume uuid); what is wanted of it stands in the journal before the first step, and everything else is read from the
//! card. So a kill at any point, of this program or of the card's, is followed by the same round as an attach: observe → wanted → plan →
//! apply, until a plan is empty.
//!
//! [`service`] (who asks) → [`request`] (checked) → [`keeper`] (one piece of work at a time per attachment; equal calls share it) over
//! [`core`] (pure: steps, states, functions), [`card`] (the calls) and [`record`] (the journal). [`hub`] tells watchers.
//!
//! **States.** ATTACHING → ATTACHED ⇄ DEGRADED; an engine that dies with the host's device: LOST, until somebody attaches it anew or the
//! card sees the host open it anew. DETACHING until nothing is left.

mod card;
mod config;
mod core;
mod failure;
mod generation;
mod hub;
mod id;
mod keeper;
mod metrics;
mod peer;
mod record;
mod request;
mod run;
mod service;
mod watch;
mod wire;

use std::process::ExitCode;

use config::{Command, Config};

/// Where the attacher listens unless told otherwise.
pub const SOCKET: &str = "/run/outboard/attacher/attacher.sock";

/// Steps at which a test build (feature `failpoints`) can be held (variable `FAILPOINTS`) or dies by SIGKILL
/// (`OUTBOARD_KILL_AT`, the name of one step).
pub const FAILPOINTS: [&str; 12] = [
    "attach::begun",
    "attach::recorded",
    "source::created",
    "limits::set",
    "part::created",
    "attach::attached",
    "resize::recorded",
    "source::resized",
    "detach::recorded",
    "part::deleted",
    "source::deleted",
    "detach::done",
];

/// The program: flags, then the service until it is told to end.
pub fn main() -> ExitCode {
    let config: Config = match daemon::args::parse() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let Command::Run(run) = config.command;
    let common = run.common.clone();
    daemon::run::run("volume-attacher", &common, |stop| run::run(*run, stop))
}
