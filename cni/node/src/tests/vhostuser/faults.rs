//! Cut off between any two steps, and overtaken by a younger sandbox of the same pod.

use std::path::Path;

use cni_bin::wire::Command;

use super::{DEVINFO, add, mount, one_at_a_time, prepared, vhost};
use crate::gateway::tests::sandbox::{sandboxed, sh, soon};
use crate::reconcile;
use crate::tests::world::{Reconciling, ask, sandbox};

#[test]
fn a_socket_cut_off_between_any_two_steps_leaves_nothing() {
    let _alone = one_at_a_time();
    sandboxed(
        "tests::vhostuser::faults::a_socket_cut_off_between_any_two_steps_leaves_nothing",
        async {
            let _scenario = fail::FailScenario::setup();
            let world = prepared().await;
            let of_del = ["del::begun", "del::unplugged", "del::forgotten"];
            for point in crate::VHOST_FAILPOINTS.into_iter().chain(of_del) {
                let removes = point.starts_with("del::")
                    || matches!(point, "vhost::withdrawn" | "vhost::forgotten");
                let command = if removes { Command::Del } else { Command::Add };
                if removes {
                    add(&world.node().await, "vm").await;
                }
                world.die(point, vhost(command, "vm")).await;
                let node = world.node().await;
                // What had its record is whole: an ADD that only did not answer, a DEL that had not got so far.
                let whole = matches!(
                    point,
                    "vhost::installed"
                        | "vhost::told"
                        | "vhost::withdrawn"
                        | "del::begun"
                        | "del::unplugged"
                );
                let left = world.leftovers(&node).await;
                // Port, record and mount.
                assert_eq!(left.len(), if whole { 3 } else { 0 }, "{point}: {left:?}");
                ask(&node, &vhost(Command::Del, "vm")).await.unwrap();
                let left = world.leftovers(&node).await;
                assert!(left.is_empty(), "{point}: {left:?}");
                assert!(!Path::new(DEVINFO).exists() && !mount().exists(), "{point}");
                let plan = reconcile::plan::plan(&reconcile::observe(&node).await.unwrap());
                assert_eq!(plan, Vec::new(), "{point}");
            }
        },
    );
}

#[test]
fn a_namespace_that_ends_without_a_del_is_swept_at_once() {
    let _alone = one_at_a_time();
    sandboxed(
        "tests::vhostuser::faults::a_namespace_that_ends_without_a_del_is_swept_at_once",
        async {
            let world = prepared().await;
            let node = world.unrecovered().await;
            let looping = Reconciling::start(&node).await;
            // Several in a row, each within a third of the timer's period: the timer could have swept one of them at most.
            for name in ["vm", "s2", "s3"] {
                if name != "vm" {
                    sandbox(name);
                }
                add(&node, name).await;
                assert_eq!(world.leftovers(&node).await.len(), 3);
                sh(&format!("ip netns del {name}"));
                soon("the sweep", || {
                    node.store.is_empty() && node.vswitch.ports().is_empty() && !mount().exists()
                })
                .await;
                assert!(!Path::new(DEVINFO).exists());
            }
            looping.stop().await;
            assert!(world.leftovers(&node).await.is_empty());
        },
    );
}

#[test]
fn the_younger_sandbox_of_a_machine_has_the_socket() {
    let _alone = one_at_a_time();
    sandboxed(
        "tests::vhostuser::faults::the_younger_sandbox_of_a_machine_has_the_socket",
        async {
            let world = prepared().await;
            let node = world.node().await;
            sandbox("vm2");
            add(&node, "vm").await;
            add(&node, "vm2").await;
            let holders = node.vswitch.ports();
            assert_eq!(holders.len(), 1, "{holders:?}");
            assert_eq!(holders[0].id.container, "vm2");
            assert_eq!(reconcile::round(&node).await, reconcile::Left::default());
            // The older one's DEL comes late: port and mount are the younger one's.
            ask(&node, &vhost(Command::Del, "vm")).await.unwrap();
            let left = world.leftovers(&node).await;
            assert_eq!(left.len(), 3, "{left:?}");
            ask(&node, &vhost(Command::Del, "vm2")).await.unwrap();
            assert!(world.leftovers(&node).await.is_empty());
        },
    );
}
