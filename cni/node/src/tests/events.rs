//! What happens to a node's attachments without a request: the kernel tells, and nobody waits for the timer.

use std::sync::Arc;
use std::time::Duration;

use cni_bin::wire::Command;
use daemon::readiness::Readiness;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::world::{TestPod, World, ask, request, sandbox};
use crate::gateway::tests::sandbox::{sandboxed, sh, soon};
use crate::reconcile;
use crate::rounds::{Pace, Rounds};

const WEB: TestPod = TestPod {
    name: "web",
    uid: "u-web",
};
const DB: TestPod = TestPod {
    name: "db",
    uid: "u-db",
};

#[test]
fn a_namespace_that_ends_without_a_del_is_swept_at_once() {
    sandboxed(
        "tests::events::a_namespace_that_ends_without_a_del_is_swept_at_once",
        async {
            let world = World::start().await;
            world.allocate(&WEB, "eth0", "default", 5);
            world.allocate(&DB, "eth0", "default", 6);
            let node = world.unrecovered().await;
            let readiness = Readiness::default();
            let rounds = Rounds::register(&mut Registry::default());
            let stop = CancellationToken::new();
            let pace = Pace::new("attachments", &rounds, &readiness, stop.clone());
            let (recovery, mut recovered) = watch::channel(false);
            let looping = tokio::spawn(reconcile::run(Arc::clone(&node), recovery, pace));
            recovered.wait_for(|done| *done).await.unwrap();

            sandbox("db");
            ask(&node, &request(Command::Add, &DB, "db", "eth0"))
                .await
                .unwrap();
            // Several in a row, each within a third of the timer's period: the timer could have swept one of them at most.
            for name in ["s1", "s2", "s3"] {
                sandbox(name);
                ask(&node, &request(Command::Add, &WEB, name, "eth0"))
                    .await
                    .unwrap();
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
            ask(&node, &request(Command::Del, &DB, "db", "eth0"))
                .await
                .unwrap();
            let left = world.leftovers(&node).await;
            assert!(left.is_empty(), "{left:?}");
            stop.cancel();
            tokio::time::timeout(Duration::from_secs(5), looping)
                .await
                .unwrap()
                .unwrap();
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
            ask(&node, &request(Command::Add, &WEB, "web", "eth0"))
                .await
                .unwrap();
            // As a DEL after a start that came before the database's contents: the port outlives link and record.
            let record = node.store.all().pop().unwrap();
            let held = node.locks.lock(&record.id.host_link()).await;
            node.store.forget(&record.id).await.unwrap();
            sh("ip netns del web");

            let readiness = Readiness::default();
            let rounds = Rounds::register(&mut Registry::default());
            let stop = CancellationToken::new();
            let pace = Pace::new("attachments", &rounds, &readiness, stop.clone());
            let (recovery, mut recovered) = watch::channel(false);
            let looping = tokio::spawn(reconcile::run(Arc::clone(&node), recovery, pace));
            recovered.wait_for(|done| *done).await.unwrap();
            assert_eq!(node.vswitch.ports().len(), 1);
            drop(held);
            // Within a third of the timer's period.
            soon("the sweep", || node.vswitch.ports().is_empty()).await;
            stop.cancel();
            tokio::time::timeout(Duration::from_secs(5), looping)
                .await
                .unwrap()
                .unwrap();
        },
    );
}
