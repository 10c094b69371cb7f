//! Operations that are cut off, overtaken, or done to a node that loses parts meanwhile: everything converges.

use std::sync::Arc;

use cni_bin::wire::Command;

use super::world::{DB, TestPod, WEB, World, ask, attach, detach, request, sandbox};
use crate::gateway::tests::sandbox::{eventually, sandboxed, sh};
use crate::reconcile;

#[test]
fn an_operation_killed_between_any_two_steps_leaves_nothing() {
    sandboxed(
        "tests::faults::an_operation_killed_between_any_two_steps_leaves_nothing",
        async {
            let _scenario = fail::FailScenario::setup();
            let world = World::start().await;
            world.allocate(&WEB, "eth0", "default", 5);
            world.allocate(&DB, "eth0", "default", 6);
            sandbox("db");
            ask(
                &*world.node().await,
                &request(Command::Add, &DB, "db", "eth0"),
            )
            .await
            .unwrap();
            for (number, point) in crate::FAILPOINTS.into_iter().enumerate() {
                let name = format!("s{number}");
                sandbox(&name);
                let command = if point.starts_with("add") {
                    Command::Add
                } else {
                    Command::Del
                };
                if command == Command::Del {
                    ask(
                        &*world.node().await,
                        &request(Command::Add, &WEB, &name, "eth0"),
                    )
                    .await
                    .unwrap();
                }
                world
                    .die(point, request(command, &WEB, &name, "eth0"))
                    .await;
                let node = world.node().await;
                // An ADD that had done everything but answer has succeeded; a DEL that had not taken the link away has not
                // happened, and the attachment is whole again. Anything else is gone without being asked.
                let whole = matches!(point, "add::installed" | "del::begun" | "del::unplugged");
                let left = world.leftovers(&node).await;
                assert_eq!(left.len(), if whole { 6 } else { 3 }, "{point}: {left:?}");
                detach(&node, &WEB, &name).await;
                assert_eq!(world.leftovers(&node).await.len(), 3, "{point}");
                assert_eq!(
                    reconcile::plan::plan(&reconcile::observe(&node).await.unwrap()),
                    Vec::new()
                );
                // The bystander never notices.
                sh("ip netns exec db ip link show eth0");
            }
        },
    );
}

#[test]
fn the_younger_sandbox_wins_and_the_older_ones_late_del_touches_nothing() {
    sandboxed(
        "tests::faults::the_younger_sandbox_wins_and_the_older_ones_late_del_touches_nothing",
        async {
            let world = World::start().await;
            let node = world.node().await;
            world.allocate(&WEB, "eth0", "default", 5);
            world.allocate(&DB, "eth0", "default", 6);
            for (pod, name) in [(&DB, "db"), (&WEB, "old"), (&WEB, "new")] {
                sandbox(name);
                attach(&node, pod, name).await;
            }
            sh("ip netns exec new ping -c1 -W5 10.244.0.6");
            let claimants = world.ovn.vsctl(
            "--no-headings --columns=name --data=bare find Interface external_ids:iface-id=default/web/default",
        );
            assert_eq!(claimants.split_whitespace().count(), 1);
            assert_eq!(reconcile::round(&node).await, reconcile::Left::default());
            sh("ip netns exec new ping -c1 -W5 10.244.0.6");
            detach(&node, &WEB, "old").await;
            sh("ip netns exec new ping -c1 -W5 10.244.0.6");
            assert_eq!(world.leftovers(&node).await.len(), 6);
        },
    );
}

#[test]
fn a_lost_port_comes_back_and_a_dead_sandbox_goes() {
    sandboxed(
        "tests::faults::a_lost_port_comes_back_and_a_dead_sandbox_goes",
        async {
            let world = World::start().await;
            let node = world.node().await;
            for (pod, host) in [(&WEB, 5), (&DB, 6)] {
                world.start_pod(&node, pod, "default", host).await;
            }
            let link = node
                .store
                .all()
                .iter()
                .find(|r| r.pod.name == "web")
                .unwrap()
                .id
                .host_link();
            world.ovn.vsctl(&format!("del-port {link}"));
            eventually("the loss is seen", || node.vswitch.ports().len() == 1).await;
            assert_eq!(reconcile::round(&node).await, reconcile::Left::default());
            world.ovn.vsctl(&format!(
                "--timeout=20 wait-until Interface {link} external_ids:ovn-installed=true"
            ));
            sh("ip netns exec web ping -c1 -W5 10.244.0.6");

            // A namespace that goes takes its link along; DEL never came.
            sh("ip netns del web");
            eventually("the link is gone", || !sh("ip link").contains(&link)).await;
            assert_eq!(reconcile::round(&node).await, reconcile::Left::default());
            let left = world.leftovers(&node).await;
            assert_eq!(left.len(), 3, "{left:?}");

            // What is not ours stays.
            sh("ip tuntap add ob0 mode tap && ip tuntap add obfffffffffffff mode tap");
            world.ovn.vsctl("add-port br-int ob0");
            assert_eq!(reconcile::round(&node).await, reconcile::Left::default());
            sh("ip link show ob0 && ip link show obfffffffffffff");
            assert!(world.ovn.vsctl("list-ports br-int").contains("ob0"));
        },
    );
}

#[test]
fn many_pods_at_once() {
    sandboxed("tests::faults::many_pods_at_once", async {
        const PODS: u8 = 30;
        let world = World::start().await;
        let node = world.node().await;
        let name = |host: u8| -> &'static str { format!("p{host}").leak() };
        for host in 10..10 + PODS {
            let pod = TestPod {
                name: name(host),
                uid: name(host),
            };
            world.allocate(&pod, "eth0", "default", host);
            sandbox(pod.name);
        }
        let started = std::time::Instant::now();
        let adds = (10..10 + PODS).map(|host| {
            let pod = TestPod {
                name: name(host),
                uid: name(host),
            };
            let node = Arc::clone(&node);
            tokio::spawn(
                async move { ask(&node, &request(Command::Add, &pod, pod.name, "eth0")).await },
            )
        });
        for add in futures::future::join_all(adds).await {
            add.unwrap().unwrap();
        }
        println!("{PODS} pods attached in {:?}", started.elapsed());
        sh("ip netns exec p10 ping -c1 -W5 10.244.0.39");
        let dels = (10..10 + PODS).map(|host| {
            let pod = TestPod {
                name: name(host),
                uid: name(host),
            };
            let node = Arc::clone(&node);
            tokio::spawn(
                async move { ask(&node, &request(Command::Del, &pod, pod.name, "eth0")).await },
            )
        });
        for del in futures::future::join_all(dels).await {
            del.unwrap().unwrap();
        }
        assert_eq!(world.leftovers(&node).await, Vec::<String>::new());
    });
}
