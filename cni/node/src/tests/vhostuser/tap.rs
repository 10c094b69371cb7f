//! Taps of machines on a node without DPDK: the same requests, Open vSwitch without it, and a real machine behind the tap.

use std::path::Path;

use cni_bin::code;
use cni_bin::wire::Command;
use lab::host_vm::HostVm;
use serde_json::{Value, json};

use super::machine::{is_the_port, spec};
use super::{DB, DEVINFO, HOOKS, IFNAME, VM, add, port_comes_back, vhost, with_machine};
use crate::gateway::tests::sandbox::{eventually, sandboxed, serve, sh};
use crate::netns::Netns;
use crate::node::Node;
use crate::reconcile;
use crate::tests::world::{MTU, TestPod, World, ask, detach, request, sandbox, with};
use crate::vhostuser::watch;

const TAP: &str = "tap6c270ef2f25";
const BRIDGE: &str = "ob-6c270ef2f25";
const MAC: &str = "0a:58:0a:f4:01:07";
const VM2: TestPod = TestPod {
    name: "vm2",
    uid: "0d7f3b52-51c5-4a6e-9b4e-5a3f2d0c7e21",
};

/// The links of a sandbox.
fn inside(sandbox: &str) -> Vec<String> {
    let links: Value = serde_json::from_str(&sh(&format!("ip -n {sandbox} -j link"))).unwrap();
    let links = links.as_array().unwrap().iter();
    let mut names: Vec<_> = links
        .map(|link| link["ifname"].as_str().unwrap().to_owned())
        .filter(|name| name != "lo")
        .collect();
    names.sort();
    names
}

fn link(name: &str) -> Value {
    let links: Value =
        serde_json::from_str(&sh(&format!("ip -n vm -d -j link show {name}"))).unwrap();
    links[0].clone()
}

async fn clean(world: &World, node: &Node, what: &str) {
    assert_eq!(world.leftovers(node).await, Vec::<String>::new(), "{what}");
    assert_eq!(inside("vm"), Vec::<String>::new(), "{what}");
    assert!(!Path::new(DEVINFO).exists(), "{what}");
}

#[test]
fn a_machine_gets_a_tap_on_a_node_without_dpdk() {
    sandboxed(
        "tests::vhostuser::tap::a_machine_gets_a_tap_on_a_node_without_dpdk",
        async {
            let world = with_machine(World::start().await);
            let node = world.node().await;
            let result = ask(&node, &vhost(Command::Add, "vm")).await.unwrap();
            let interfaces = result["interfaces"].as_array().unwrap();
            assert_eq!(
                interfaces[1],
                json!({"name": IFNAME, "mac": MAC, "mtu": MTU, "sandbox": "/run/netns/vm"})
            );
            assert_eq!(result["ips"][0]["address"], "10.244.1.7/24");
            assert_eq!(result["ips"][0]["interface"], 1);
            let info: Value = serde_json::from_slice(&std::fs::read(DEVINFO).unwrap()).unwrap();
            assert_eq!(info, json!({"type": "tap", "version": "1.1.0"}));
            assert!(!world.volume(&VM, HOOKS).join("outboard").exists());

            // The machine's user may open the tap, with as many queues as the network says; nothing in the pod speaks but the machine.
            let taps = sh("ip -n vm tuntap show");
            for word in [
                TAP,
                "tap",
                "vnet_hdr",
                "multi_queue",
                "persist",
                "user 107",
                "group 107",
            ] {
                assert!(taps.contains(word), "{word}: {taps}");
            }
            assert_eq!(inside("vm"), [BRIDGE, IFNAME, TAP]);
            for name in [BRIDGE, IFNAME, TAP] {
                let link = link(name);
                assert_eq!(link["mtu"], MTU, "{link}");
                assert!(
                    link["flags"].as_array().unwrap().contains(&json!("UP")),
                    "{link}"
                );
                assert_ne!(link["address"], MAC, "{link}");
                let master = link.get("master").and_then(Value::as_str);
                assert_eq!(master, (name != BRIDGE).then_some(BRIDGE), "{link}");
            }
            assert_eq!(link(TAP)["ifalias"], format!("outboard {MAC}"));
            let wire = &link(BRIDGE)["linkinfo"]["info_data"];
            for key in ["ageing_time", "stp_state", "mcast_snooping"] {
                assert_eq!(wire[key], 0, "{key}: {wire}");
            }
            assert_eq!(sh("ip -n vm -o addr show scope link"), "");

            ask(&node, &vhost(Command::Status, "-")).await.unwrap();
            assert_eq!(watch::problems(&node), Vec::<String>::new());
            let again = ask(&node, &vhost(Command::Add, "vm")).await.unwrap_err();
            assert_eq!(again.code, code::REFUSED, "{again}");
            let plan = reconcile::plan::plan(&reconcile::observe(&node).await.unwrap());
            assert_eq!(plan, Vec::new());

            let check = with(vhost(Command::Check, "vm"), &json!({"prevResult": result}));
            ask(&node, &check).await.unwrap();
            for (spoil, repair, says) in [
                (
                    format!("{TAP} down"),
                    format!("{TAP} up"),
                    "tap6c270ef2f25 is down",
                ),
                (
                    format!("{TAP} nomaster"),
                    format!("{TAP} master {BRIDGE}"),
                    "tap6c270ef2f25 is not on its bridge",
                ),
                (
                    format!("{TAP} alias x"),
                    format!("{TAP} alias 'outboard {MAC}'"),
                    "does not say its MAC address",
                ),
                (
                    format!("{BRIDGE} down"),
                    format!("{BRIDGE} up"),
                    "ob-6c270ef2f25 is down",
                ),
                (
                    format!("{IFNAME} mtu 1300"),
                    format!("{IFNAME} mtu {MTU}"),
                    "is 1300, not 1342",
                ),
                (
                    format!("{IFNAME} nomaster"),
                    format!("{IFNAME} master {BRIDGE}"),
                    "pod6c270ef2f25 is not on its bridge",
                ),
            ] {
                sh(&format!("ip -n vm link set {spoil}"));
                let failure = ask(&node, &check).await.unwrap_err();
                assert_eq!(failure.code, code::CHECK_FAILED, "{failure}");
                assert!(failure.msg.contains(says), "{spoil}: {failure}");
                sh(&format!("ip -n vm link set {repair}"));
                ask(&node, &check).await.unwrap();
            }
            sh(&format!("mv {DEVINFO} {DEVINFO}.x"));
            let failure = ask(&node, &check).await.unwrap_err();
            assert!(
                failure.msg.contains("device information is gone"),
                "{failure}"
            );
            sh(&format!("mv {DEVINFO}.x {DEVINFO}"));
            port_comes_back(&world, &node).await;
            ask(&node, &check).await.unwrap();
            sh(&format!("ip -n vm link del {TAP}"));
            let failure = ask(&node, &check).await.unwrap_err();
            assert!(
                failure.msg.contains("tap6c270ef2f25 does not exist"),
                "{failure}"
            );

            for _ in 0..2 {
                ask(&node, &vhost(Command::Del, "vm")).await.unwrap();
                clean(&world, &node, "DEL").await;
            }
        },
    );
}

#[test]
fn taps_of_two_machines_go_by_gc_and_with_their_sandboxes() {
    sandboxed(
        "tests::vhostuser::tap::taps_of_two_machines_go_by_gc_and_with_their_sandboxes",
        async {
            let world = with_machine(World::start().await);
            let node = world.node().await;
            world.allocate(&VM2, IFNAME, "blue", 8);
            sandbox("vm2");
            world.volume(&VM2, HOOKS);
            add(&node, "vm").await;
            // One queue, and nobody asks what it is.
            let plain = json!({"name": "fast", "subnet": "blue", "kind": "vhostuser"});
            let second = |command| with(request(command, &VM2, "vm2", IFNAME), &plain);
            ask(&node, &second(Command::Add)).await.unwrap();
            assert!(!sh("ip -n vm2 tuntap show").contains("multi_queue"));
            watch::problems(&node);
            assert_eq!(node.vswitch.ports().len(), 2);

            let gc =
                json!({"cni.dev/valid-attachments": [{"containerID": "vm2", "ifname": IFNAME}]});
            ask(&node, &with(vhost(Command::Gc, "-"), &gc))
                .await
                .unwrap();
            assert_eq!(inside("vm"), Vec::<String>::new());
            assert!(!Path::new(DEVINFO).exists());
            assert_eq!(inside("vm2"), [BRIDGE, IFNAME, TAP]);
            ask(&node, &second(Command::Del)).await.unwrap();
            clean(&world, &node, "GC").await;

            // The end of a sandbox is no call; and a DEL after it is fine.
            add(&node, "vm").await;
            sh("ip netns del vm");
            eventually("its links are gone", || !sh("ip link").contains("ob")).await;
            assert_eq!(reconcile::round(&node).await, reconcile::Left::default());
            assert_eq!(world.leftovers(&node).await, Vec::<String>::new());
            assert!(!Path::new(DEVINFO).exists());
            ask(&node, &vhost(Command::Del, "vm")).await.unwrap();

            // What is not of our making stays, and is no attachment.
            sandbox("vm");
            sh(&format!("ip -n vm tuntap add dev {TAP} mode tap"));
            let failure = ask(&node, &vhost(Command::Add, "vm")).await.unwrap_err();
            assert!(failure.msg.contains("ip tuntap add"), "{failure}");
            assert!(failure.details.contains("somebody else"), "{failure}");
            assert_eq!(world.leftovers(&node).await, Vec::<String>::new());
            let strange = with(
                request(Command::Add, &VM, "vm", "net1"),
                &json!({"name": "fast", "kind": "vhostuser"}),
            );
            let failure = ask(&node, &strange).await.unwrap_err();
            assert_eq!(failure.code, code::REFUSED, "{failure}");
            assert!(failure.msg.contains("interface net1"), "{failure}");
        },
    );
}

#[test]
fn a_tap_cut_off_between_any_two_steps_leaves_nothing() {
    sandboxed(
        "tests::vhostuser::tap::a_tap_cut_off_between_any_two_steps_leaves_nothing",
        async {
            let _scenario = fail::FailScenario::setup();
            let world = with_machine(World::start().await);
            let of_del = ["del::begun", "del::unplugged", "del::forgotten"];
            for point in crate::TAP_FAILPOINTS.into_iter().chain(of_del) {
                let removes = point.starts_with("del::")
                    || matches!(point, "tap::unlinked" | "tap::removed" | "tap::withdrawn");
                let command = if removes { Command::Del } else { Command::Add };
                if removes {
                    add(&world.node().await, "vm").await;
                }
                world.die(point, vhost(command, "vm")).await;
                let node = world.node().await;
                // What has record and link is an attachment until its DEL, answered or not.
                let whole = match point {
                    "del::begun" | "del::unplugged" => true,
                    "tap::begun" | "tap::recorded" => false,
                    _ => !removes,
                };
                let left = world.leftovers(&node).await;
                assert_eq!(left.len(), if whole { 3 } else { 0 }, "{point}: {left:?}");
                ask(&node, &vhost(Command::Del, "vm")).await.unwrap();
                clean(&world, &node, point).await;
                let plan = reconcile::plan::plan(&reconcile::observe(&node).await.unwrap());
                assert_eq!(plan, Vec::new(), "{point}");
            }
        },
    );
}

#[test]
fn a_machine_behind_a_tap_is_the_port() {
    sandboxed(
        "tests::vhostuser::tap::a_machine_behind_a_tap_is_the_port",
        async {
            let mut world = with_machine(World::start().await);
            let node = world.node().await;
            world.start_pod(&node, &DB, "blue", 9).await;
            serve("db", "10.244.1.9:7777").await;
            add(&node, "vm").await;

            let home = tempfile::tempdir().unwrap();
            let arguments = [
                "-netdev",
                &format!("tap,id=net,ifname={TAP},script=no,downscript=no,queues=2"),
                "-device",
                &format!("virtio-net-pci,netdev=net,mac={MAC},mq=on,vectors=6"),
            ];
            let spec = spec(home.path(), &arguments);
            let pod = Netns::of_pod(Path::new("/run/netns/vm")).unwrap();
            let vm = pod.run(move || HostVm::boot(spec)).await.unwrap();
            let vm = vm.unwrap_or_else(|why| panic!("{why:#}"));
            is_the_port(&mut world, &vm).await;
            // The machine leaves its checksums to whoever sends for it.
            let said = vm.run("nc 10.244.1.9 7777 </dev/null").unwrap();
            assert!(format!("{said:?}").contains("10.244.1.7"), "{said:?}");

            drop(vm);
            ask(&node, &vhost(Command::Del, "vm")).await.unwrap();
            detach(&node, &DB, "db").await;
            clean(&world, &node, "DEL").await;
        },
    );
}
