//! CHECK of attachments that somebody has changed: it says what, changes nothing, and DEL still cleans up.

use std::time::Duration;

use anyhow::ensure;
use e2e::until;
use rstest::rstest;
use serde_json::{Value, json};

use crate::world::{Pod, host_link, world};

/// Where a command runs.
#[derive(Debug, Clone, Copy)]
enum Place {
    Pod,
    Node,
}

const REMEDY: &str = "Recreate the pod";

#[rstest]
#[case::v4(
    Place::Pod,
    "ip addr del {v4}/16 dev eth0",
    "it has no address {v4}/16"
)]
#[case::v6(
    Place::Pod,
    "ip addr del {v6}/64 dev eth0",
    "it has no address {v6}/64"
)]
#[case::down(Place::Pod, "ip link set eth0 down", "it is down")]
#[case::route(
    Place::Pod,
    "ip route del 10.96.0.0/16",
    "it has no route to 10.96.0.0/16 via 10.244.0.1"
)]
#[case::default_route(
    Place::Pod,
    "ip route del default",
    "it has no route to 0.0.0.0/0 via 10.244.0.1"
)]
#[case::default_route6(
    Place::Pod,
    "ip -6 route del default",
    "it has no route to ::/0 via fd00:10:244::1"
)]
#[case::host_end(Place::Node, "ip link set {link} down", "its end on the host is down")]
#[case::mac(
    Place::Pod,
    "ip link set eth0 address 02:00:00:00:00:01",
    "its MAC address is 02:00:00:00:00:01, not {mac}"
)]
#[case::mtu(Place::Pod, "ip link set eth0 mtu 1280", "its MTU is 1280, not 1442")]
#[case::renamed(
    Place::Pod,
    "ip link set eth0 down; ip link set eth0 name other0",
    "the interface does not exist"
)]
#[case::deleted(Place::Node, "ip link del {link}", "the interface does not exist")]
#[case::port(
    Place::Node,
    "ovs-vsctl --timeout=10 del-port br-int {link}",
    "it has no port in Open vSwitch"
)]
#[case::owner(
    Place::Node,
    "ovs-vsctl set interface {link} external_ids:sandbox=other",
    "belongs to somebody else"
)]
#[case::claim(
    Place::Node,
    "ovs-vsctl set interface {link} external_ids:iface-id=other",
    "ovn-controller has not installed its flows"
)]
fn check_finds_what_was_changed(
    #[case] place: Place,
    #[case] change: &str,
    #[case] sentence: &str,
    #[values("0.4.0", "1.0.0", "1.1.0")] version: &str,
) {
    let lab = world();
    let node = lab.node("n2");
    let pod = Pod::new(&lab, node, "tampered");
    let result = pod.add(version);
    pod.check(version, &result).result().unwrap();

    let known = [
        ("{v4}", pod.row.v4()),
        ("{v6}", pod.row.v6()),
        ("{link}", host_link(&result).to_string()),
        ("{mac}", pod.row.facts.mac.to_string()),
    ];
    let fill = |text: &str| {
        known.iter().fold(text.to_string(), |text, (key, value)| {
            text.replace(key, value)
        })
    };
    let (change, sentence) = (fill(change), fill(sentence));
    match place {
        Place::Pod => pod.sandbox.exec(&["sh", "-ec", &change]),
        Place::Node => node.script(&change),
    }
    .unwrap();
    // Results before 1.1.0 carry no MTU: what they do not say is not compared.
    if change.contains("mtu") && version < "1.1.0" {
        pod.check(version, &result).result().unwrap();
    } else {
        // cni-node follows OVS's database; ovn-controller has to see a lost claim first.
        let found = until("CHECK to fail", Duration::from_secs(10), || {
            let check = pod.check(version, &result);
            ensure!(!check.success, "CHECK finds nothing");
            Ok(Some(check))
        });
        let found = found.unwrap_or_else(|why| {
            let row = format!("ovs-vsctl --timeout=10 list interface {}", known[2].1);
            panic!("{why:#}; Open vSwitch has {:?}", node.script(&row))
        });
        let container = pod.sandbox.container.as_str();
        let parts = ["Interface eth0 of sandbox", container, &sentence];
        found.refused(100, &parts, REMEDY);
    }
    pod.del(version);
    if !change.contains("external_ids:sandbox") {
        pod.left_nothing();
    }
}

#[rstest]
fn check_needs_the_result_of_the_add(#[values("0.4.0", "1.0.0", "1.1.0")] version: &str) {
    let lab = world();
    let node = lab.node("n1");
    let pod = Pod::new(&lab, node, "unchecked");
    let result = pod.add(version);

    let without = pod.run("CHECK", version, &json!({}));
    without.refused(
        7,
        &["network pods", "CHECK came without \"prevResult\""],
        "result of the ADD",
    );
    let nothing = json!({"cniVersion": version, "interfaces": [], "ips": []});
    let empty = pod.check(version, &nothing);
    let sentence = [
        "\"prevResult\" lists no interface eth0 in sandbox",
        &pod.sandbox.path(),
    ];
    empty.refused(100, &sentence, "result of the ADD");
    let mut elsewhere = result.clone();
    elsewhere["interfaces"][1]["sandbox"] = Value::from("/run/netns/elsewhere");
    pod.check(version, &elsewhere)
        .refused(100, &["lists no interface eth0"], "result of the ADD");
    let other = pod.call("CHECK", version, &json!({"prevResult": result}));
    let other = other.env("CNI_CONTAINERID", "somebody").run(node).unwrap();
    other.refused(
        100,
        &[
            "Interface eth0 of sandbox somebody",
            "no port in Open vSwitch",
        ],
        REMEDY,
    );

    pod.sandbox.remove().unwrap();
    let gone = pod.check(version, &result);
    gone.refused(
        8,
        &["network namespace", &pod.sandbox.path(), "does not exist"],
        "HostToContainer",
    );
    pod.del(version);
}
