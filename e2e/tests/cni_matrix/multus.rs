//! Secondary interfaces as Multus asks for them: another network, another ifname, the pod's identity, no prevResult.

use e2e::{CniCall, CniOutcome, CniSandbox, PodRow};
use rstest::rstest;
use serde_json::{Value, json};

use crate::world::{Pod, config, host_link, world};

/// What Multus executes for a NetworkAttachmentDefinition in subnet `blue`.
fn delegate(verb: &str, version: &str, pod: &Pod<'_>, row: &PodRow, more: &Value) -> CniOutcome {
    let mut keys = json!({"name": "blue-net", "subnet": "blue"});
    keys.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let call = CniCall::new(verb, config(version, &keys).to_string());
    call.of(&pod.sandbox, row).run(pod.sandbox.node()).unwrap()
}

#[rstest]
fn a_second_interface_comes_and_goes_by_itself(
    #[values("0.3.1", "0.4.0", "1.0.0", "1.1.0")] version: &str,
) {
    let lab = world();
    let node = lab.node("n1");
    let pod = Pod::new(&lab, node, "multus");
    let first = pod.add(version);
    let row = lab
        .network
        .schedule(&pod.row.spec.secondary("net1"))
        .unwrap();
    assert!(row.port.ends_with("/blue/net1"), "{}", row.port);

    // What was asked for by annotation, and allocated so.
    let asked = json!({"runtimeConfig": {"mac": row.facts.mac.to_string(), "ips": [row.v4(), format!("{}/64", row.v6())]}});
    let second = delegate("ADD", version, &pod, &row, &asked)
        .result()
        .unwrap();
    assert_eq!(second["interfaces"][1]["name"], "net1");
    assert_eq!(second["ips"][0]["address"], format!("{}/16", row.v4()));
    assert_eq!(
        second.get("routes").unwrap_or(&json!([])),
        &json!([]),
        "no default route but eth0's"
    );
    assert_ne!(host_link(&first), host_link(&second));
    let routes = pod.sandbox.exec(&["ip", "route"]).unwrap();
    assert!(
        routes.contains("10.245.0.0/16 dev net1") && routes.contains("default via 10.244.0.1"),
        "{routes}"
    );
    pod.reaches("10.245.0.1");
    pod.sandbox
        .exec(&["ping", "-n", "-c1", "-W2", "-I", "net1", "10.245.0.1"])
        .unwrap();
    pod.sandbox
        .exec(&["ping", "-n", "-c1", "-W2", "-I", "net1", "fd00:10:245::1"])
        .unwrap();

    let again = delegate("ADD", version, &pod, &row, &asked);
    again.refused(
        101,
        &["net1 of sandbox", "attached already"],
        "DEL it first",
    );
    if version >= "0.4.0" {
        let check = json!({"prevResult": second});
        delegate("CHECK", version, &pod, &row, &check)
            .result()
            .unwrap();
        pod.check(version, &first).result().unwrap();
    }
    delegate("DEL", version, &pod, &row, &json!({}))
        .result()
        .unwrap();
    assert!(
        pod.sandbox
            .exec(&["ip", "link", "show", "dev", "net1"])
            .is_err()
    );
    pod.reaches("10.244.0.1");
    pod.del(version);
    pod.left_nothing();
}

#[test]
fn a_second_interface_must_be_what_was_allocated() {
    let lab = world();
    let node = lab.node("n1");
    let pod = Pod::new(&lab, node, "multus");
    let row = lab
        .network
        .schedule(&pod.row.spec.secondary("net1"))
        .unwrap();
    let refused = |more: Value, code: u64, sentence: &[&str], remedy: &str| {
        let outcome = delegate("ADD", "1.0.0", &pod, &row, &more);
        outcome.refused(code, sentence, remedy);
        assert!(
            pod.sandbox
                .exec(&["ip", "link", "show", "dev", "net1"])
                .is_err()
        );
    };
    let name = format!("Pod default/{}", pod.row.spec.name);

    let subnet = [
        &name,
        "interface net1",
        &row.port,
        "is in subnet blue",
        "names subnet green",
    ];
    refused(
        json!({"subnet": "green"}),
        7,
        &subnet,
        "NetworkAttachmentDefinition",
    );
    let mac = [
        &name,
        "asks for mac 02:00:00:00:00:09",
        &row.port,
        &row.facts.mac.to_string(),
    ];
    refused(
        json!({"runtimeConfig": {"mac": "02:00:00:00:00:09"}}),
        101,
        &mac,
        "annotations",
    );
    let ips = [&name, "the address 10.245.99.99/16", &row.port, &row.v4()];
    refused(
        json!({"runtimeConfig": {"ips": ["10.245.99.99/16"]}}),
        101,
        &ips,
        "annotations",
    );
    refused(
        json!({"runtimeConfig": {"deviceID": "0000:3b:00.2"}}),
        2,
        &["Network blue-net", "\"deviceID\" is \"0000:3b:00.2\""],
        "Remove the resource",
    );

    // The pod has no such interface.
    let spec = e2e::PodSpec {
        ifname: "net7".into(),
        ..row.spec.clone()
    };
    let other = PodRow {
        spec,
        ..row.clone()
    };
    let missing = delegate("ADD", "1.0.0", &pod, &other, &json!({"timeoutSeconds": 1}));
    let sentence = [
        &name,
        "no address is allocated for interface net7",
        "eth0, net1",
    ];
    missing.refused(11, &sentence, "k8s.v1.cni.cncf.io/networks");
}

#[test]
fn the_second_interface_follows_a_new_sandbox_too() {
    let lab = world();
    let node = lab.node("n2");
    let old = Pod::new(&lab, node, "multus");
    let row = lab
        .network
        .schedule(&old.row.spec.secondary("net1"))
        .unwrap();
    old.add("1.1.0");
    delegate("ADD", "1.1.0", &old, &row, &json!({}))
        .result()
        .unwrap();
    let sandbox = CniSandbox::create(node, &crate::world::fresh("sandbox")).unwrap();
    let young = Pod {
        row: old.row.clone(),
        sandbox,
    };
    young.add("1.1.0");
    delegate("ADD", "1.1.0", &young, &row, &json!({}))
        .result()
        .unwrap();
    delegate("DEL", "1.1.0", &old, &row, &json!({}))
        .result()
        .unwrap();
    old.del("1.1.0");
    young.reaches("10.244.0.1");
    young
        .sandbox
        .exec(&["ping", "-n", "-c1", "-W2", "-I", "net1", "10.245.0.1"])
        .unwrap();
    delegate("DEL", "1.1.0", &young, &row, &json!({}))
        .result()
        .unwrap();
    young.del("1.1.0");
}
