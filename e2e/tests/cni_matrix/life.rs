//! A whole life of an attachment, in every version.

use rstest::rstest;
use serde_json::{Value, json};

use crate::world::{Pod, VERSIONS, config, external_id, fresh, host_link, world};
use e2e::{CniCall, EXTRA_ROUTE};

#[rstest]
fn an_attachment_lives_and_dies(
    #[values("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")] version: &str,
) {
    let lab = world();
    let node = lab.node("n1");
    let pod = Pod::new(&lab, node, "life");

    let result = pod.add(version);
    shape(version, &pod, &result);
    kernel(&pod);
    open_vswitch(&pod, &result);
    pod.reaches("10.244.0.1");
    pod.reaches("fd00:10:244::1");

    // Once more: the same attachment, then another one onto the same interface.
    let again = pod.run("ADD", version, &json!({}));
    let container = pod.sandbox.container.as_str();
    again.refused(
        101,
        &["eth0", container, "attached already"],
        "DEL it first",
    );
    let other = pod
        .call("ADD", version, &json!({}))
        .env("CNI_CONTAINERID", &fresh("other"));
    let other = other.run(node).unwrap();
    other.refused(
        101,
        &["Interface eth0 exists already in the sandbox"],
        "DEL it first",
    );
    pod.reaches("10.244.0.1");

    let before = state(&pod, &result);
    let check = pod.check(version, &result);
    if version < "0.4.0" {
        check.refused(
            1,
            &["CHECK does not exist in cniVersion", version],
            "0.4.0 or later",
        );
    } else {
        assert_eq!(check.result().unwrap(), Value::Null);
    }
    assert_eq!(state(&pod, &result), before, "CHECK changes nothing");

    pod.del(version);
    pod.left_nothing();
    pod.del(version);

    // The same container again, then its namespace goes before its DEL.
    let result = pod.add(version);
    pod.reaches("10.244.0.1");
    pod.sandbox.remove().unwrap();
    let del = pod
        .call("DEL", version, &json!({"prevResult": result}))
        .env("CNI_NETNS", "");
    assert_eq!(del.run(node).unwrap().result().unwrap(), Value::Null);
    assert_eq!(external_id(node, host_link(&result), "sandbox"), "");
    // The path is named but nothing is there; nobody knows the pod.
    let del = pod.call("DEL", version, &json!({})).env("CNI_ARGS", "");
    assert_eq!(del.run(node).unwrap().result().unwrap(), Value::Null);
}

/// A link's name comes back at once: ovs-vswitchd may not yet have let go of the one before.
#[test]
fn the_same_attachment_again_and_again() {
    let lab = world();
    let node = lab.node("n2");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let pod = Pod::new(&lab, node, "again");
                for _ in 0..10 {
                    pod.add("1.1.0");
                    pod.reaches("10.244.0.1");
                    pod.del("1.1.0");
                }
            });
        }
    });
}

#[test]
fn a_del_needs_only_the_attachments_key() {
    let lab = world();
    let node = lab.node("n2");
    for version in VERSIONS {
        let pod = Pod::new(&lab, node, "bare");
        pod.add(version);
        let del = pod.call("DEL", version, &json!({"prevResult": {"ips": "broken"}}));
        let del = del
            .env("CNI_NETNS", "")
            .env("CNI_ARGS", "")
            .env("CNI_PATH", "");
        assert_eq!(del.run(node).unwrap().result().unwrap(), Value::Null);
        pod.left_nothing();
        // Somebody else's container, which nobody has ever heard of.
        let unknown = pod
            .call("DEL", version, &json!({}))
            .env("CNI_CONTAINERID", &fresh("unknown"));
        assert_eq!(unknown.run(node).unwrap().result().unwrap(), Value::Null);
    }
}

#[test]
fn version_and_status_say_what_can_be_served() {
    let lab = world();
    let node = lab.node("n1");
    for version in VERSIONS {
        let text = config(version, &json!({})).to_string();
        let versions = CniCall::new("VERSION", text.clone()).run(node).unwrap();
        let expected = json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS});
        assert_eq!(versions.result().unwrap(), expected);
        for verb in ["STATUS", "GC"] {
            let answer = CniCall::new(verb, text.clone()).run(node).unwrap();
            if version == "1.1.0" {
                assert_eq!(answer.result().unwrap(), Value::Null, "{verb}");
            } else {
                let sentence = format!("{verb} does not exist in cniVersion {version}");
                answer.refused(1, &[&sentence], "Use cniVersion 1.1.0 or later");
            }
        }
    }
}

/// The result is laid out as its version has it.
#[track_caller]
fn shape(version: &str, pod: &Pod<'_>, result: &Value) {
    let (row, news) = (&pod.row, version >= "1.1.0");
    assert_eq!(result["cniVersion"], version);
    let interfaces = result["interfaces"].as_array().unwrap();
    assert_eq!(interfaces.len(), 2, "{result}");
    assert!(host_link(result).starts_with("ob"), "{result}");
    let inside = &interfaces[1];
    assert_eq!(inside["name"], "eth0");
    assert_eq!(inside["mac"], row.facts.mac.to_string());
    assert_eq!(inside["sandbox"], pod.sandbox.path());
    assert_eq!(inside.get("mtu"), news.then_some(&json!(1442)), "{result}");
    let expected = [
        ("4", format!("{}/16", row.v4()), "10.244.0.1"),
        ("6", format!("{}/64", row.v6()), "fd00:10:244::1"),
    ];
    let ips = result["ips"].as_array().unwrap();
    assert_eq!(ips.len(), expected.len(), "{result}");
    for (ip, (family, address, gateway)) in ips.iter().zip(expected) {
        assert_eq!(ip["address"], address);
        assert_eq!(ip["gateway"], gateway);
        assert_eq!(ip["interface"], 1);
        assert_eq!(
            ip.get("version"),
            (version < "1.0.0").then_some(&json!(family)),
            "{result}"
        );
    }
    let routes = [
        ("0.0.0.0/0", "10.244.0.1"),
        ("::/0", "fd00:10:244::1"),
        (EXTRA_ROUTE, "10.244.0.1"),
    ];
    let routes: Vec<_> = routes
        .iter()
        .map(|(dst, gw)| json!({"dst": dst, "gw": gw}))
        .collect();
    assert_eq!(result["routes"], json!(routes));
}

/// The interface is as the result says.
#[track_caller]
fn kernel(pod: &Pod<'_>) {
    let row = &pod.row;
    let link = pod.sandbox.ip(&["address", "show", "dev", "eth0"]).unwrap()[0].clone();
    assert_eq!(link["address"], row.facts.mac.to_string());
    assert_eq!(
        (&link["mtu"], &link["txqlen"]),
        (&json!(1442), &json!(1000)),
        "{link}"
    );
    let has = |address: String| {
        link["addr_info"].as_array().unwrap().iter().any(|info| {
            format!("{}/{}", info["local"].as_str().unwrap(), info["prefixlen"]) == address
                && info["tentative"].is_null()
        })
    };
    assert!(
        has(format!("{}/16", row.v4())) && has(format!("{}/64", row.v6())),
        "{link}"
    );
    let routes = pod.sandbox.exec(&["ip", "route"]).unwrap();
    assert!(
        routes.contains("default via 10.244.0.1 dev eth0"),
        "{routes}"
    );
    assert!(
        routes.contains("10.96.0.0/16 via 10.244.0.1 dev eth0"),
        "{routes}"
    );
    let routes = pod.sandbox.exec(&["ip", "-6", "route"]).unwrap();
    assert!(
        routes.contains("default via fd00:10:244::1 dev eth0"),
        "{routes}"
    );
}

/// The owner is written on the Interface, and ADD has waited for OVN.
#[track_caller]
fn open_vswitch(pod: &Pod<'_>, result: &Value) {
    let (node, row) = (pod.sandbox.node(), &pod.row);
    let link = host_link(result);
    let expected = [
        ("ovn-installed", "true"),
        ("iface-id", &row.port),
        ("iface-id-ver", &row.spec.uid),
        ("attached-mac", &row.facts.mac.to_string()),
        ("outboard", "pod"),
        ("uid", &row.spec.uid),
        ("sandbox", &pod.sandbox.container),
        ("ifname", "eth0"),
        ("pod", &format!("default/{}", row.spec.name)),
        ("netns", &pod.sandbox.path()),
    ];
    for (key, value) in expected {
        assert_eq!(external_id(node, link, key), value, "{key}");
    }
}

/// Everything that a CHECK looks at.
fn state(pod: &Pod<'_>, result: &Value) -> String {
    let inside = pod
        .sandbox
        .exec(&["sh", "-c", "ip addr; ip route; ip -6 route"])
        .unwrap();
    let columns = "--columns=name,external_ids,ofport,error";
    let argv = ["ovs-vsctl", columns, "list", "interface", host_link(result)];
    let port = pod.sandbox.node().exec(&argv).unwrap();
    inside + &port
}
