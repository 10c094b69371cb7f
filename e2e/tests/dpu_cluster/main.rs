//! Hosts whose network is on their DPUs, on a real cluster: a master, two hosts, two DPUs, Outboard from its own manifests.
//!
//! Each case breaks one thing and says what running pods of the host noticed: pings run all the time, and the longest gap is printed.
//! All cases share one lab and run in order; after each, both sides are swept for what is left over.
//! `cargo test -p e2e --test dpu_cluster -- reboot` runs the cases whose name contains `reboot`.

mod churn;
mod daemons;
mod forged;
mod gone;
mod harness;
mod reach;
mod recovery;
mod sandboxes;
mod steps;
mod world;

use std::process::ExitCode;

use harness::{Case, case};

const CASES: [Case; 21] = [
    case("everybody_reaches_everybody", reach::everybody),
    case("nodes_reach_their_pods_and_services", reach::nodes),
    case("hosts_have_no_switch", reach::no_switch),
    case("services_without_pods_behind_them", reach::services),
    case("forged_requests_are_refused", forged::requests),
    case("channel_cut_and_healed", recovery::channel_cut),
    case("host_daemon_restarts", daemons::host),
    case("dpu_daemon_restarts", daemons::dpu),
    case("both_daemons_restart_in_any_order", daemons::both),
    case("switch_restarts", recovery::switch_restarts),
    case(
        "switch_loses_its_database",
        recovery::switch_loses_its_database,
    ),
    case(
        "dpu_object_deleted_and_made_anew",
        recovery::object_made_anew,
    ),
    case("card_replaced", recovery::card_replaced),
    case("dpu_reboots", recovery::dpu_reboots),
    case("host_reboots", recovery::host_reboots),
    case("dpu_gone_is_said_at_once", gone::dpu),
    case("two_sandboxes_of_one_pod", sandboxes::two_of_one_pod),
    case(
        "function_asked_for_before_its_old_pod_has_left",
        sandboxes::function_taken_over,
    ),
    case("host_and_dpu_daemons_killed_at_every_step", steps::of_both),
    case("daemons_killed_under_churn", churn::daemons_killed),
    case("all_pods_of_a_full_host_come_back", churn::full_host),
];

fn main() -> ExitCode {
    harness::run(&CASES)
}
