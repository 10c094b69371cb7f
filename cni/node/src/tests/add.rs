//! ADD, CHECK, DEL, GC and STATUS as a runtime calls them.

use std::time::Duration;

use cni_bin::code;
use cni_bin::wire::Command;
use futures::FutureExt as _;
use serde_json::{Value, json};

use super::world::{DB, MTU, TestPod, WEB, World, ask, attach, request, sandbox, with, within};
use crate::gateway::tests::sandbox::{eventually, sandboxed, sh};

#[test]
fn pods_are_attached_reach_each_other_are_checked_and_detached() {
    sandboxed(
        "tests::add::pods_are_attached_reach_each_other_are_checked_and_detached",
        async {
            let world = World::start().await;
            let node = world.node().await;
            world.allocate(&WEB, "eth0", "default", 5);
            world.allocate(&DB, "eth0", "default", 6);
            world.allocate(&DB, "net1", "blue", 7);
            sandbox("web");
            sandbox("db");
            let result = ask(&node, &request(Command::Add, &WEB, "web", "eth0"))
                .await
                .unwrap();
            attach(&node, &DB, "db").await;

            assert_eq!(result["cniVersion"], "1.1.0");
            let ours = &result["interfaces"][1];
            let interface = json!({"name": "eth0", "mac": "0a:58:0a:f4:00:05", "mtu": MTU, "sandbox": "/run/netns/web"});
            assert_eq!(*ours, interface);
            assert_eq!(
                result["ips"][0],
                json!({"interface": 1, "address": "10.244.0.5/24", "gateway": "10.244.0.1"})
            );
            assert_eq!(result["ips"][1]["address"], "fd00:10:244::5/64");
            let routes: Vec<_> = result["routes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| r["dst"].clone())
                .collect();
            assert_eq!(routes, ["0.0.0.0/0", "::/0", "10.96.0.0/16"]);
            let near = result["interfaces"][0]["name"].as_str().unwrap();
            sh(&format!(
                "ip link show {near} | grep -q 'state UP' && test -z \"$(ip -6 address show dev {near})\""
            ));
            sh(
                "ip netns exec web ping -c1 -W5 10.244.0.6 && ip netns exec web ping -c1 -W5 fd00:10:244::6",
            );
            // Full-size packets pass with checksums that the interface computes itself.
            sh(&format!(
                "ip netns exec web ping -c1 -W5 -M do -s {} 10.244.0.6",
                MTU - 28
            ));

            // Multus: a second interface in the subnet that its configuration names.
            let second = with(
                request(Command::Add, &DB, "db", "net1"),
                &json!({"name": "blue", "subnet": "blue"}),
            );
            let result = ask(&node, &second).await.unwrap();
            assert_eq!(result["ips"][0]["address"], "10.244.1.7/24");
            assert_eq!(
                result["routes"],
                json!([{"dst": "10.97.0.0/16", "gw": "10.244.1.1"}])
            );
            assert!(sh("ip -n db route show default").contains("dev eth0"));

            again(&node, &world).await;
        },
    );
}

async fn again(node: &crate::node::Node, world: &World) {
    let web = |command| request(command, &WEB, "web", "eth0");
    let refused = ask(node, &web(Command::Add)).await.unwrap_err();
    assert_eq!(refused.code, code::REFUSED, "{refused}");
    assert!(refused.msg.contains("attached already"), "{refused}");
    sh("ip netns exec web ping -c1 -W5 10.244.0.6");

    // The result as a runtime keeps it. CHECK changes nothing and sees each change.
    let prev = json!({"prevResult": {"cniVersion": "1.1.0",
        "interfaces": [{"name": "x"}, {"name": "eth0", "mac": "0a:58:0a:f4:00:05", "mtu": MTU, "sandbox": "/run/netns/web"}],
        "ips": [{"interface": 1, "address": "10.244.0.5/24"}, {"interface": 1, "address": "fd00:10:244::5/64"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.244.0.1"}]}});
    let check = with(web(Command::Check), &prev);
    ask(node, &check).await.unwrap();
    for (tamper, repair, sentence) in [
        (
            "ip -n web route del default",
            "ip -n web route add default via 10.244.0.1",
            "no route to 0.0.0.0/0",
        ),
        (
            "ip -n web link set eth0 mtu 1300",
            &*format!("ip -n web link set eth0 mtu {MTU}"),
            "MTU is 1300",
        ),
        (
            "ip -n web addr del fd00:10:244::5/64 dev eth0",
            "ip -n web addr add fd00:10:244::5/64 dev eth0 nodad",
            "no address fd00:10:244::5/64",
        ),
        (
            "ip -n web link set eth0 name eth9",
            "ip -n web link set eth9 name eth0",
            "does not exist",
        ),
    ] {
        sh(tamper);
        let failure = ask(node, &check).await.unwrap_err();
        assert_eq!(failure.code, code::CHECK_FAILED, "{tamper}: {failure}");
        assert!(failure.msg.contains(sentence), "{tamper}: {failure}");
        sh(repair);
    }
    sh("ip -n web route replace default via 10.244.0.1");
    ask(node, &check).await.unwrap();

    for _ in 0..2 {
        ask(node, &web(Command::Del)).await.unwrap();
        assert!(
            sh("ip -n web link")
                .lines()
                .all(|line| !line.contains("eth0"))
        );
    }
    sh("ip netns del db");
    for ifname in ["eth0", "net1"] {
        let mut gone = request(Command::Del, &DB, "db", ifname);
        gone.env.remove("CNI_NETNS");
        gone.env.remove("CNI_ARGS");
        ask(node, &gone).await.unwrap();
    }
    ask(node, &request(Command::Del, &DB, "never-was", "eth0"))
        .await
        .unwrap();
    assert_eq!(world.leftovers(node).await, Vec::<String>::new());
}

#[test]
fn what_an_add_misses_is_named() {
    sandboxed("tests::add::what_an_add_misses_is_named", async {
        let world = World::start().await;
        let node = world.node().await;
        sandbox("web");
        let web = || {
            within(
                request(Command::Add, &WEB, "web", "eth0"),
                Duration::from_secs(1),
            )
        };
        let sentence = async |expected: u32, cause: &str| {
            let failure = ask(&node, &web()).await.unwrap_err();
            assert_eq!(failure.code, expected, "{failure}");
            assert!(
                failure.msg.contains(cause) && !failure.details.is_empty(),
                "{failure}"
            );
            assert_eq!(world.leftovers(&node).await, Vec::<String>::new());
        };
        sentence(11, "no address is allocated on chassis n1 for eth0").await;
        world.allocate(
            &TestPod {
                uid: "u-old",
                ..WEB
            },
            "eth0",
            "default",
            5,
        );
        eventually("the old pod's row is here", || {
            node.southbound.binding("default/web/default").is_none()
        })
        .await;
        sentence(11, "earlier pod of that name (UID u-old").await;
        world.allocate(&WEB, "eth0", "default", 5);

        let blue = with(web(), &json!({"subnet": "blue"}));
        let failure = ask(&node, &blue).await.unwrap_err();
        assert_eq!(failure.code, code::INVALID_CONFIG, "{failure}");
        assert!(failure.msg.contains("in subnet default"), "{failure}");
        let other = with(web(), &json!({"runtimeConfig": {"ips": ["10.244.0.99"]}}));
        assert!(
            ask(&node, &other)
                .await
                .unwrap_err()
                .msg
                .contains("10.244.0.99")
        );

        sh("ip -n web link add eth0 type veth peer name other");
        sentence(code::REFUSED, "Interface eth0 exists already").await;
        sh("ip -n web link del eth0");
        let mut gone = web();
        gone.env
            .insert("CNI_NETNS".into(), "/run/netns/gone".into());
        assert_eq!(
            ask(&node, &gone).await.unwrap_err().code,
            code::INVALID_NETNS
        );
        gone.env
            .insert("CNI_NETNS".into(), "/proc/self/ns/net".into());
        assert!(
            ask(&node, &gone)
                .await
                .unwrap_err()
                .msg
                .contains("host's own")
        );
        gone.env.insert("CNI_NETNS".into(), "/etc/hostname".into());
        assert!(
            ask(&node, &gone)
                .await
                .unwrap_err()
                .msg
                .contains("is not a network namespace")
        );

        // OVN's part, missing piece by piece.
        let ctl = sh(&format!(
            "ls {}/ovn-controller.*.ctl",
            world.ovn.home().display()
        ));
        let ctl = std::path::Path::new(ctl.trim());
        ask(&node, &request(Command::Status, &WEB, "-", "-"))
            .await
            .unwrap();
        sh(&format!("ovs-appctl -t {} exit --restart", ctl.display()));
        eventually("ovn-controller has ended", || !ctl.exists()).await;
        sentence(11, "ovn-controller does not answer").await;
        let status = ask(&node, &request(Command::Status, &WEB, "-", "-"))
            .await
            .unwrap_err();
        assert_eq!(status.code, code::NOT_AVAILABLE, "{status}");
        // As ovn-controller makes it before it knows better: checksums would be left to hardware that is not there.
        world
            .ovn
            .vsctl("--no-wait set bridge br-int datapath_type=system");
        eventually("cni-node sees another datapath type", || {
            let now = tokio::time::Instant::now();
            let bridge = node.vswitch.bridge(now).now_or_never();
            bridge.is_none_or(|found| found.is_err())
        })
        .await;
        sentence(11, "bridge br-int has another datapath type").await;
        world.ovn.vsctl("del-br br-int");
        sentence(11, "bridge br-int does not exist").await;
    });
}

#[test]
fn gc_removes_what_is_no_longer_valid_and_only_that() {
    sandboxed(
        "tests::add::gc_removes_what_is_no_longer_valid_and_only_that",
        async {
            let world = World::start().await;
            let node = world.node().await;
            for (pod, host) in [(&WEB, 5), (&DB, 6)] {
                world.start_pod(&node, pod, "default", host).await;
            }
            let gc = |keys: Value| with(request(Command::Gc, &WEB, "-", "-"), &keys);
            let both = world.leftovers(&node).await;
            assert_eq!(both.len(), 6);
            ask(&node, &gc(json!({}))).await.unwrap();
            ask(
                &node,
                &gc(json!({"name": "other", "cni.dev/valid-attachments": []})),
            )
            .await
            .unwrap();
            assert_eq!(world.leftovers(&node).await, both);
            let valid = json!([{"containerID": "web", "ifname": "eth0"}]);
            ask(&node, &gc(json!({"cni.dev/valid-attachments": valid})))
                .await
                .unwrap();
            assert_eq!(world.leftovers(&node).await.len(), 3);
            assert!(sh("ip -n web link").contains("eth0"));
            ask(&node, &gc(json!({"cni.dev/valid-attachments": []})))
                .await
                .unwrap();
            assert_eq!(world.leftovers(&node).await, Vec::<String>::new());
        },
    );
}
