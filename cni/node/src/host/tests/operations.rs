//! ADD, CHECK, DEL, GC and STATUS as a runtime calls them.

use std::time::{Duration, Instant};

use channel::proto::Trouble;
use cni_bin::code;
use cni_bin::wire::{Command, Request};
use serde_json::json;

use super::world::{DB, FUNCTIONS, Host, WEB, World, at_home, pair};
use crate::gateway::tests::sandbox::{eventually, sandboxed, sh, soon};
use crate::host::status::sentences;
use crate::tests::world::{
    TestPod, ask_any as ask, detach_any as detach, request, sandbox, with, within,
};

async fn add(host: &Host, pod: &TestPod, name: &str) -> serde_json::Value {
    sandbox(name);
    ask(&*host.node, &request(Command::Add, pod, name, "eth0"))
        .await
        .unwrap()
}

fn status() -> Request {
    request(Command::Status, &WEB, "-", "-")
}

#[test]
fn pods_are_attached_reach_each_other_are_checked_and_detached() {
    sandboxed(
        "host::tests::operations::pods_are_attached_reach_each_other_are_checked_and_detached",
        async {
            let world = World::start().await;
            let host = world.host().await;
            let result = add(&host, &WEB, "web").await;
            add(&host, &DB, "db").await;
            assert_eq!(
                result["interfaces"],
                json!([{"name": "eth0", "mac": "0a:58:0a:f4:00:05", "mtu": 1400, "sandbox": "/run/netns/web"}])
            );
            assert_eq!(
                result["ips"][0],
                json!({"interface": 0, "address": "10.244.0.5/24", "gateway": "10.244.0.1"})
            );
            sh("ip netns exec web ping -c1 -W5 10.244.0.6
                ip netns exec web ping -c1 -W5 fd00:10:244::6
                ip netns exec db ping -c1 -W5 -M do -s 1372 10.244.0.1");
            // The host's own interface leads to pods and services.
            sh("ip -o route get 10.244.0.5 | grep -q 'dev ob0'
                ip -o route get 10.96.0.1 | grep -q 'via 100.64.0.1 dev ob0'
                ping -c1 -W5 10.244.0.5");

            let web = |command| request(command, &WEB, "web", "eth0");
            let refused = ask(&*host.node, &web(Command::Add)).await.unwrap_err();
            assert_eq!(refused.code, code::REFUSED, "{refused}");
            assert!(refused.msg.contains("attached already"), "{refused}");

            let prev = json!({"prevResult": {"cniVersion": "1.1.0",
                "interfaces": [{"name": "eth0", "mac": "0a:58:0a:f4:00:05", "mtu": 1400, "sandbox": "/run/netns/web"}],
                "ips": [{"interface": 0, "address": "10.244.0.5/24"}],
                "routes": [{"dst": "0.0.0.0/0", "gw": "10.244.0.1"}]}});
            let check = with(web(Command::Check), &prev);
            ask(&*host.node, &check).await.unwrap();
            sh("ip -n web route del default");
            let differs = ask(&*host.node, &check).await.unwrap_err();
            assert!(differs.msg.contains("no route to 0.0.0.0/0"), "{differs}");
            sh("ip -n web route add default via 10.244.0.1");
            world.bridge.forget();
            let differs = ask(&*host.node, &check).await.unwrap_err();
            assert!(differs.msg.contains("no port for it"), "{differs}");
            host.node.link.sync_now();
            eventually("the DPU has all again", || {
                world.bridge.sandboxes().len() == 2
            })
            .await;
            ask(&*host.node, &check).await.unwrap();

            for _ in 0..2 {
                ask(&*host.node, &web(Command::Del)).await.unwrap();
                assert!(!sh("ip -n web link").contains("eth0"));
            }
            // The namespace is gone before the DEL, which says nothing but the key.
            sh("ip netns del db");
            let mut gone = request(Command::Del, &DB, "db", "eth0");
            gone.env.remove("CNI_NETNS");
            gone.env.remove("CNI_ARGS");
            ask(&*host.node, &gone).await.unwrap();
            ask(
                &*host.node,
                &request(Command::Del, &DB, "never-was", "eth0"),
            )
            .await
            .unwrap();
            eventually("all is as before", || world.leftovers(&host).is_empty()).await;
            ask(&*host.node, &status()).await.unwrap();
        },
    );
}

#[test]
fn the_function_moves_while_the_dpu_looks_for_its_wiring_and_comes_home_if_there_is_none() {
    sandboxed(
        "host::tests::operations::the_function_moves_while_the_dpu_looks_for_its_wiring_and_comes_home_if_there_is_none",
        async {
            let world = World::start().await;
            let host = world.host().await;
            let begin = |pod: &'static TestPod, name: &'static str| {
                sandbox(name);
                let (node, add) = (host.node.clone(), request(Command::Add, pod, name, "eth0"));
                tokio::spawn(async move { ask(&*node, &add).await })
            };
            let shows = |name: &str| sh(&format!("ip -n {name} -o link; ip -n {name} -o addr"));
            let moved = async |name: &str| {
                eventually("the function is in the pod", || {
                    shows(name).contains("eth0")
                })
                .await;
                let shown = shows(name);
                assert!(
                    !shown.contains("eth0@") || shown.contains("state DOWN"),
                    "{shown}"
                );
                assert!(
                    !shown.contains("10.244.") && !shown.contains("0a:58:0a"),
                    "{shown}"
                );
            };
            world.bridge.tells.send_replace(false);
            let going = begin(&WEB, "web");
            moved("web").await;
            world.bridge.tells.send_replace(true);
            going.await.unwrap().unwrap();
            sh("ip netns exec web ping -c1 -W5 10.244.0.1");

            // The DPU refuses it.
            world.bridge.tells.send_replace(false);
            const NONE: TestPod = TestPod {
                name: "none",
                uid: "u-none",
            };
            let going = begin(&NONE, "none");
            moved("none").await;
            world.bridge.tells.send_replace(true);
            let refused = going.await.unwrap().unwrap_err();
            assert!(refused.msg.contains("no port on this host"), "{refused}");
            assert!(!shows("none").contains("eth0"));

            // A DEL overtakes it.
            world.bridge.tells.send_replace(false);
            let going = begin(&DB, "db");
            moved("db").await;
            detach(&*host.node, &DB, "db").await;
            let given_up = going.await.unwrap().unwrap_err();
            assert!(given_up.msg.contains("given up"), "{given_up}");
            world.bridge.tells.send_replace(true);

            // The name is taken in the pod: the DPU's word is not waited for.
            world.bridge.tells.send_replace(false);
            sandbox("full");
            sh("ip -n full link add eth0 type veth peer name eth1");
            let started = Instant::now();
            let full = ask(&*host.node, &request(Command::Add, &DB, "full", "eth0")).await;
            assert_eq!(full.unwrap_err().code, code::REFUSED);
            assert!(started.elapsed() < Duration::from_secs(5));
            world.bridge.tells.send_replace(true);

            detach(&*host.node, &WEB, "web").await;
            eventually("all is as before", || world.leftovers(&host).is_empty()).await;
        },
    );
}

#[test]
fn gc_removes_what_is_no_longer_valid_and_only_that() {
    sandboxed(
        "host::tests::operations::gc_removes_what_is_no_longer_valid_and_only_that",
        async {
            let world = World::start().await;
            let host = world.host().await;
            add(&host, &WEB, "web").await;
            add(&host, &DB, "db").await;
            let gc = |valid| with(request(Command::Gc, &WEB, "-", "-"), &valid);
            ask(&*host.node, &gc(json!({}))).await.unwrap();
            ask(
                &*host.node,
                &gc(json!({"name": "other", "cni.dev/valid-attachments": []})),
            )
            .await
            .unwrap();
            assert_eq!(world.bridge.sandboxes(), ["db", "web"]);
            let valid = json!([{"containerID": "web", "ifname": "eth0"}]);
            ask(
                &*host.node,
                &gc(json!({"cni.dev/valid-attachments": valid})),
            )
            .await
            .unwrap();
            assert_eq!(world.bridge.sandboxes(), ["web"]);
            ask(&*host.node, &gc(json!({"cni.dev/valid-attachments": []})))
                .await
                .unwrap();
            assert_eq!(world.leftovers(&host), Vec::<String>::new());
            sh("ip link show ob0");
        },
    );
}

#[test]
fn status_says_at_once_that_the_dpu_is_lost_and_a_del_does_not_wait_for_it() {
    sandboxed(
        "host::tests::operations::status_says_at_once_that_the_dpu_is_lost_and_a_del_does_not_wait_for_it",
        async {
            let mut world = World::start().await;
            let host = world.host().await;
            let code_now = async || {
                ask(&*host.node, &status())
                    .await
                    .err()
                    .map(|error| error.code)
            };
            assert_eq!(code_now().await, None);
            let trouble = |limits| Trouble {
                sentence: "ovn-controller is not connected".to_owned(),
                limits,
            };
            world.bridge.troubles.send_replace(vec![trouble(false)]);
            soon("the trouble is heard", || !sentences(&host.node).is_empty()).await;
            assert_eq!(code_now().await, Some(code::NOT_AVAILABLE));
            world.bridge.troubles.send_replace(Vec::new());
            soon("it is over", || sentences(&host.node).is_empty()).await;

            add(&host, &WEB, "web").await;
            let started = Instant::now();
            world.cut().await;
            soon("the loss is noticed", || !sentences(&host.node).is_empty()).await;
            assert!(
                started.elapsed() < Duration::from_secs(4),
                "{:?}",
                started.elapsed()
            );
            assert_eq!(
                code_now().await,
                Some(code::NOT_AVAILABLE_LIMITED_CONNECTIVITY)
            );
            // What is there works on.
            sh("ip netns exec web ping -c1 -W5 10.244.0.1");

            sandbox("db");
            // Not by its own deadline: who waits wants to know why.
            let started = Instant::now();
            let late = request(Command::Add, &DB, "db", "eth0");
            let late = ask(&*host.node, &late).await.unwrap_err();
            assert_eq!(late.code, code::TRY_AGAIN_LATER, "{late}");
            assert!(late.msg.contains("no session with DPU d1"), "{late}");
            assert!(started.elapsed() < Duration::from_secs(14));
            let started = Instant::now();
            detach(&*host.node, &WEB, "web").await;
            assert!(started.elapsed() < Duration::from_secs(2));
            assert_eq!(code_now().await, Some(code::NOT_AVAILABLE));
            assert_eq!(world.leftovers(&host), ["port of web"]);
            world.serve().await;
            host.up().await;
            assert_eq!(world.leftovers(&host), Vec::<String>::new());

            pair(&world.home, false);
            soon("the pair is gone", || !sentences(&host.node).is_empty()).await;
            let alone = ask(&*host.node, &status()).await.unwrap_err();
            assert!(
                alone.msg.contains("no Dpu object names this host"),
                "{alone}"
            );
            pair(&world.home, true);
            host.up().await;
            add(&host, &WEB, "again").await;
        },
    );
}

#[test]
fn a_younger_pod_gets_the_function_and_a_late_del_touches_nothing() {
    sandboxed(
        "host::tests::operations::a_younger_pod_gets_the_function_and_a_late_del_touches_nothing",
        async {
            let world = World::start().await;
            let host = world.host().await;
            // Multus passes what the device plugin has given.
            let device = |pod: &'static TestPod, name: &str| {
                let asked = request(Command::Add, pod, name, "eth0");
                with(asked, &json!({"runtimeConfig": {"deviceID": "vf3"}}))
            };
            for (pod, name) in [(&WEB, "web"), (&DB, "db")] {
                sandbox(name);
                ask(&*host.node, &device(pod, name)).await.unwrap();
            }
            assert!(!sh("ip -n web link").contains("eth0"));
            sh("ip netns exec db ping -c1 -W5 10.244.0.1");
            detach(&*host.node, &WEB, "web").await;
            sh("ip netns exec db ping -c1 -W5 10.244.0.1");
            assert_eq!(world.bridge.sandboxes(), ["db"]);
            sandbox("x");
            let absent = with(
                within(device(&WEB, "x"), Duration::from_secs(2)),
                &json!({"runtimeConfig": {"deviceID": "vf99"}}),
            );
            let absent = ask(&*host.node, &absent).await.unwrap_err();
            assert!(absent.msg.contains("vf99"), "{absent}");
            let own = with(
                device(&WEB, "x"),
                &json!({"runtimeConfig": {"deviceID": "vf0"}}),
            );
            let own = ask(&*host.node, &own).await.unwrap_err();
            assert_eq!(own.code, code::REFUSED, "{own}");

            // Two sandboxes of one pod: the younger has the port, and keeps it after the older one's DEL.
            add(&host, &WEB, "old").await;
            add(&host, &WEB, "new").await;
            assert_eq!(world.bridge.sandboxes(), ["db", "new"]);
            sh("ip netns exec new ping -c1 -W5 10.244.0.1");
            detach(&*host.node, &WEB, "old").await;
            sh("ip netns exec new ping -c1 -W5 10.244.0.1");
            assert_eq!(world.bridge.sandboxes(), ["db", "new"]);
        },
    );
}

#[test]
fn the_pool_hands_out_only_what_is_back_and_says_when_it_is_empty() {
    sandboxed(
        "host::tests::operations::the_pool_hands_out_only_what_is_back_and_says_when_it_is_empty",
        async {
            let world = World::start().await;
            let host = world.host().await;
            for number in 1..FUNCTIONS {
                let name: &'static str = format!("p{number}").leak();
                world
                    .bridge
                    .allocate(name, 10 + u8::try_from(number).unwrap());
                add(&host, &TestPod { name, uid: name }, name).await;
            }
            assert!(at_home().iter().all(|name| !name.starts_with("vf")));
            sandbox("web");
            let none = request(Command::Add, &WEB, "web", "eth0");
            let none = ask(&*host.node, &none).await.unwrap_err();
            assert_eq!(none.code, code::TRY_AGAIN_LATER, "{none}");
            assert!(
                none.msg.contains("no function of the card is free"),
                "{none}"
            );
            // A process keeps the namespace of a pod whose path is gone: its function is not back.
            sh(
                "ip netns exec p1 sleep 600 >/dev/null 2>&1 </dev/null & echo $! > /run/holder; sleep 0.2; ip netns del p1",
            );
            let p1 = TestPod {
                name: "p1",
                uid: "p1",
            };
            detach(&*host.node, &p1, "p1").await;
            let none = request(Command::Add, &WEB, "web", "eth0");
            assert!(ask(&*host.node, &none).await.is_err());
            sh("kill $(cat /run/holder)");
            let back = request(Command::Add, &WEB, "web", "eth0");
            let mut served = ask(&*host.node, &back).await;
            for _ in 0..3 {
                if served.is_err() {
                    served = ask(&*host.node, &back).await;
                }
            }
            served.unwrap();
            sh("ip netns exec web ping -c1 -W5 10.244.0.1");
        },
    );
}

#[test]
fn many_pods_at_once() {
    sandboxed("host::tests::operations::many_pods_at_once", async {
        let world = World::start().await;
        let host = world.host().await;
        let pods: Vec<TestPod> = (1..FUNCTIONS)
            .map(|number| {
                let name: &'static str = format!("p{number}").leak();
                world
                    .bridge
                    .allocate(name, 10 + u8::try_from(number).unwrap());
                sandbox(name);
                TestPod { name, uid: name }
            })
            .collect();
        for command in [Command::Add, Command::Del, Command::Add] {
            let started = Instant::now();
            let all = pods.iter().map(|pod| {
                let (node, request) = (host.node.clone(), request(command, pod, pod.name, "eth0"));
                tokio::spawn(async move { ask(&*node, &request).await })
            });
            for done in futures::future::join_all(all).await {
                done.unwrap().unwrap();
            }
            println!(
                "{command} of {} pods in {:?}",
                pods.len(),
                started.elapsed()
            );
        }
        sh("ip netns exec p1 ping -c1 -W5 10.244.0.15");
    });
}
