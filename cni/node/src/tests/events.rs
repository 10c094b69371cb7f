//! What happens to a node's attachments without a request: the kernel tells, and nobody waits for the timer.

use super::world::{DB, Reconciling, WEB, World, attach, detach, sandbox};
use crate::gateway::tests::sandbox::{sandboxed, sh, soon};

#[test]
fn a_namespace_that_ends_without_a_del_is_swept_at_once() {
    sandboxed(
        "tests::events::a_namespace_that_ends_without_a_del_is_swept_at_once",
        async {
            let world = World::start().await;
            world.allocate(&WEB, "eth0", "default", 5);
            world.allocate(&DB, "eth0", "default", 6);
            let node = world.unrecovered().await;
            let looping = Reconciling::start(&node).await;

            sandbox("db");
            attach(&node, &DB, "db").await;
            // Several in a row, each within a third of the timer's period: the timer could have swept one of them at most.
            for name in ["s1", "s2", "s3"] {
                sandbox(name);
                attach(&node, &WEB, name).await;
                let before = world.leftovers(&node).await;
                assert_eq!(before.len(), 6, "{before:?}");
                // As when containerd has lost the sandbox.
                sh(&format!("ip netns del {name}"));
                soon("the sweep", || {
                    node.store.len() == 1 && node.vswitch.ports().len() == 1
                })
                .await;
            }
            // What lives is left alone.
            let left = world.leftovers(&node).await;
            assert_eq!(left.len(), 3, "{left:?}");
            detach(&node, &DB, "db").await;
            let left = world.leftovers(&node).await;
            assert!(left.is_empty(), "{left:?}");
            looping.stop().await;
        },
    );
}

#[test]
fn what_an_operation_under_way_hid_is_swept_when_it_ends() {
    sandboxed(
        "tests::events::what_an_operation_under_way_hid_is_swept_when_it_ends",
        async {
            let world = World::start().await;
            world.allocate(&WEB, "eth0", "default", 5);
            let node = world.node().await;
            sandbox("web");
            attach(&node, &WEB, "web").await;
            // As a DEL after a start that came before the database's contents: the port outlives link and record.
            let record = node.store.all().pop().unwrap();
            let held = node.locks.lock(&record.id.host_link()).await;
            node.store.forget(&record.id).await.unwrap();
            sh("ip netns del web");

            let looping = Reconciling::start(&node).await;
            assert_eq!(node.vswitch.ports().len(), 1);
            drop(held);
            // Within a third of the timer's period.
            soon("the sweep", || node.vswitch.ports().is_empty()).await;
            looping.stop().await;
        },
    );
}
