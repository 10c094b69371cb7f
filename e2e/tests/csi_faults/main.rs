//! The fault list of storage, on the whole chain: csi-controller, csi-node-dpu, volume-attacher, opi-bridge, outboard-engine and
//! csi-node-host, over real daemons, loop devices and mounts.
//!
//! Each case breaks one thing, says what must hold while it is broken and after, and ends with a sweep that finds nothing left over.
//! Cases share a chain: a group is a chain, its cases run in order, groups run side by side. `cargo test -p e2e --test csi_faults
//! -- full` runs the cases whose name contains `full`.
//!
//! What reads and writes volumes is another process (this program, run as `write` or `check`): one that waits for a FUSE file for
//! ever can't be ended, nor can whoever shares its memory.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail; only helpers are not seen as tests"
)]

mod again;
mod content;
mod daemons;
mod full;
mod harness;
mod kills;
mod targets;
mod world;
mod writer;

use std::process::ExitCode;

use harness::{Ground, Group, case};

const KILLS: Group = Group {
    name: "kills",
    ground: Ground::Plain,
    cases: &[
        case("every_program_at_every_step", kills::every_step),
        case("csi_node_dpu_under_every_call", kills::node_dpu),
        case("everything_at_once_under_a_writer", kills::everything),
    ],
};

const CALLS: Group = Group {
    name: "calls",
    ground: Ground::Plain,
    cases: &[
        case("controller_restarts_within_create", again::restarted),
        case("every_call_twice_at_once", again::twice),
        case("unpublish_before_unstage", again::unpublish_first),
        case("unpublish_from_a_host_that_was_given_up", again::given_up),
        case("target_daemon_killed_under_a_writer", daemons::target),
        case("card_daemon_killed_under_a_writer", daemons::card),
        case("target_hangs", targets::hangs),
        case("target_disappears", targets::disappears),
        case("somebody_elses_content", content::foreign),
        case("read_errors", content::unreadable),
        case("equal_volumes_with_swapped_loops", content::swapped),
    ],
};

const TLS: Group = Group {
    name: "tls",
    ground: Ground::Tls,
    cases: &[case("target_of_another_name", targets::refuses)],
};

const FULL: Group = Group {
    name: "full",
    ground: Ground::Small,
    cases: &[case("disk_full_under_a_writer", full::under_a_writer)],
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match writer::Order::parse(&arguments) {
        Some(order) => order.carry_out(),
        None => harness::run(&[KILLS, CALLS, TLS, FULL]),
    }
}
