//! The fault list on a real two-node cluster with Outboard from its own manifests.
//!
//! Each case breaks one thing, says what must hold while it is broken and after, and ends with a sweep that finds nothing
//! left over. A lab costs half a minute, so cases share one: a group is a lab, its cases run in order, groups run side by
//! side. `cargo test -p e2e --test cluster_faults -- burst` runs the cases whose name contains `burst`.

mod api;
mod bursts;
mod controllers;
mod disaster;
mod harness;
mod nodes;
mod pods;
mod restarts;
mod security;
mod stolen;
mod world;

use std::process::ExitCode;

use harness::{Group, case};

const PARTS: Group = Group {
    name: "parts",
    nb_servers: 1,
    cases: &[
        case("northd_restarts", restarts::northd),
        case("ovn_controller_restarts", restarts::ovn_controller),
        case("ovs_vswitchd_restarts", restarts::ovs_vswitchd),
        case(
            "ovs_vswitchd_of_the_master_restarts",
            restarts::ovs_vswitchd_of_the_master,
        ),
        case("local_ovsdb_server_restarts", restarts::local_database),
        case("southbound_server_restarts", restarts::southbound),
        case("northbound_server_restarts", restarts::northbound),
        case("containerd_restarts", restarts::containerd),
        case("kubelet_restarts", restarts::kubelet),
        case("cni_node_killed", restarts::cni_node),
        case(
            "api_server_stopped_during_starts",
            api::stopped_during_starts,
        ),
        case("burst_of_110_pods_on_one_node", bursts::hundred_and_ten),
        case("node_deleted", nodes::deleted),
        case(
            "northbound_emptied_under_its_writer",
            disaster::emptied_under_its_writer,
        ),
        case(
            "northbound_emptied_then_rebuilt",
            disaster::emptied_then_rebuilt,
        ),
    ],
};

const RIGHTS: Group = Group {
    name: "rights",
    nb_servers: 3,
    cases: &[
        case(
            "statefulset_pod_moves_while_its_old_sandbox_is_there",
            pods::moved,
        ),
        case("statefulset_pod_recreated_on_its_node", pods::recreated),
        case(
            "new_sandbox_before_the_old_one_is_gone",
            pods::second_sandbox,
        ),
        case("address_pool_full", pods::pool_full),
        case("completed_pods_release_addresses", pods::completed),
        case(
            "kill9_in_the_middle_of_a_burst",
            bursts::killed_in_the_middle,
        ),
        case("northbound_leader_lost", controllers::leader_lost),
        case("two_controllers_one_writes", controllers::two),
        case("least_rights", security::least_rights),
        case("keys_of_ours_are_refused_to_others", security::admission),
        case(
            "certificate_for_another_node_is_denied",
            security::forged_request,
        ),
        case("stolen_chassis_certificate", stolen::certificate),
    ],
};

fn main() -> ExitCode {
    harness::run(&[PARTS, RIGHTS])
}
