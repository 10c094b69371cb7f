//! What a host loses and gets back without a request.

use std::time::{Duration, Instant};

use super::world::{DB, WEB, World, at_home};
use crate::gateway::tests::sandbox::{eventually, sandboxed, sh, soon};
use crate::tests::world::{attach_any as attach, detach_any as detach, sandbox};

#[test]
fn functions_that_vanish_and_come_back_go_to_their_pods_as_they_were() {
    sandboxed(
        "host::tests::recovery::functions_that_vanish_and_come_back_go_to_their_pods_as_they_were",
        async {
            let world = World::start().await;
            let host = world.host().await;
            for pod in [&WEB, &DB] {
                sandbox(pod.name);
                attach(&*host.node, pod, pod.name).await;
            }
            let namespace = sh("stat -Lc %i /run/netns/web");
            for _ in 0..2 {
                // A DPU that is reset takes all functions along.
                let started = Instant::now();
                sh("for n in 0 1 2 3 4 5; do ip -n dpu link del pf0vf$n; done");
                let there = || {
                    let link = std::process::Command::new("ip")
                        .args(["-n", "web", "-o", "addr", "show", "dev", "eth0"])
                        .output();
                    let link = String::from_utf8(link.unwrap().stdout).unwrap();
                    link.contains("10.244.0.5/24") && link.contains("fd00:10:244::5/64")
                };
                soon("the interface is back", there).await;
                println!("back after {:?}", started.elapsed());
                sh("ip -n web link show eth0 | grep -q 0a:58:0a:f4:00:05");
                assert_eq!(sh("stat -Lc %i /run/netns/web"), namespace);
                eventually("ob0 is back", || {
                    at_home().contains(&"ob0".to_owned())
                        && sh("ip -o route show dev ob0").contains("10.244.0.0/16")
                })
                .await;
                eventually("the other pod's, too", || {
                    sh("ip -n db -o link").contains("eth0")
                })
                .await;
                world.bridge.plug_again();
                sh("ip netns exec web ping -c1 -W5 10.244.0.6 && ping -c1 -W5 10.244.0.5");
            }
            for pod in [&WEB, &DB] {
                detach(&*host.node, pod, pod.name).await;
            }
            assert_eq!(world.leftovers(&host), Vec::<String>::new());
        },
    );
}

#[test]
fn a_namespace_that_ends_without_a_del_is_swept() {
    sandboxed(
        "host::tests::recovery::a_namespace_that_ends_without_a_del_is_swept",
        async {
            let world = World::start().await;
            let host = world.host().await;
            sandbox("web");
            attach(&*host.node, &WEB, "web").await;
            sh("ip netns del web");
            soon("it is swept", || world.leftovers(&host).is_empty()).await;
        },
    );
}

#[test]
fn either_side_restarts_and_the_other_has_all_again() {
    sandboxed(
        "host::tests::recovery::either_side_restarts_and_the_other_has_all_again",
        async {
            let mut world = World::start().await;
            let host = world.host().await;
            sandbox("web");
            attach(&*host.node, &WEB, "web").await;
            // The DPU comes back without any memory.
            world.cut().await;
            world.bridge.forget();
            world.serve().await;
            host.up().await;
            eventually("the DPU has it again", || {
                world.bridge.sandboxes() == ["web"]
            })
            .await;
            // The host's process restarts.
            host.end().await;
            let host = world.host().await;
            assert_eq!(world.bridge.sandboxes(), ["web"]);
            sh("ip netns exec web ping -c1 -W5 10.244.0.1 && ping -c1 -W5 10.244.0.5");
            // The host boots: its pods are gone, and the DPU lets go of them.
            host.end().await;
            std::fs::write(world.home.join("boot-id"), "next-boot\n").unwrap();
            sh("ip netns del web");
            let host = world.host().await;
            eventually("all is gone", || world.leftovers(&host).is_empty()).await;
            sh("ping -c1 -W5 10.244.0.1");
        },
    );
}

#[test]
fn a_loop_in_peace_does_nothing() {
    sandboxed(
        "host::tests::recovery::a_loop_in_peace_does_nothing",
        async {
            let world = World::start().await;
            let host = world.host().await;
            sandbox("web");
            attach(&*host.node, &WEB, "web").await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            let loops = ["attachments", "gateway"];
            let before = host.rounds.made(&loops);
            tokio::time::sleep(Duration::from_secs(5)).await;
            let more = host.rounds.made(&loops) - before;
            assert!(more <= 2, "{more} rounds without a cause");
        },
    );
}
