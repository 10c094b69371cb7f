//! Storage on a real two-node cluster: real kubelets, the real sidecars, Outboard from its own manifests.
//!
//! All cases share one lab, each has a namespace of its own and ends when nothing is left of its volumes. The phases run one
//! after the other, the cases of a phase side by side: what disturbs the whole cluster has a phase of its own.
//! After each phase all logs are searched for all secrets; at the end a sweep finds both nodes as they were before.
//! `cargo test -p e2e --test storage_cluster -- snapshot` runs the cases whose name contains `snapshot`.

mod change;
mod contents;
mod copies;
mod crowds;
mod faults;
mod harness;
mod logs;
mod lost_node;
mod rollout;
mod secrets;
mod world;

use std::process::ExitCode;

use harness::{Phase, case};

const PHASES: [Phase; 6] = [
    // The long ones first.
    Phase(&[
        case("filesystem_xfs_moves", contents::xfs_moves),
        case("filesystem_grows_under_a_writer", change::filesystem),
        case("ephemeral_volumes_by_the_dozen", crowds::ephemeral),
        case("group_snapshot_keeps_the_order_of_writes", copies::group),
        case("stateful_set_keeps_its_data", crowds::stateful),
        case("clones_of_equal_and_larger_size", copies::clones),
        case("snapshot_is_restored", copies::snapshot),
        case("attributes_class_limits_iops", change::limits),
        case("secrets_reach_no_log", secrets::used_everywhere),
        case("filesystem_ext4_moves", contents::ext4_moves),
        case("block_moves", contents::block_moves),
        case("block_grows_under_a_writer", change::block),
        case("raw_block_on_two_nodes_at_once", contents::shared),
        case("one_pod_alone", contents::one_pod),
        case("bad_parameters_are_told", faults::bad_parameters),
    ]),
    Phase(&[case(
        "rollout_of_everything_under_writers",
        rollout::of_everything,
    )]),
    Phase(&[
        case(
            "controller_killed_while_ten_are_made",
            faults::controller_killed,
        ),
        case(
            "node_host_killed_between_stage_and_publish",
            faults::node_host_killed,
        ),
    ]),
    // Not beside a csi-node-host that dies at every volume that is staged.
    Phase(&[case(
        "engine_pods_replaced_under_writers",
        rollout::of_the_engine,
    )]),
    Phase(&[case("node_drained", crowds::drained)]),
    Phase(&[
        case("out_of_service_node", lost_node::out_of_service),
        case("kubelet_restarts_under_a_writer", faults::kubelet_restarts),
    ]),
];

fn main() -> ExitCode {
    harness::run(&PHASES)
}
