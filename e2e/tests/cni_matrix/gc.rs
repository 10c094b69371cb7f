//! GC: no list, an empty one, a part; only the network that was named.

use e2e::CniOutcome;
use serde_json::{Value, json};

use crate::world::{Pod, config, fresh, world};

/// Adds a pod in a network of that name.
fn add(pod: &Pod<'_>, network: &str) -> Value {
    pod.run("ADD", "1.1.0", &json!({"name": network}))
        .result()
        .unwrap()
}

fn attachment(pod: &Pod<'_>) -> Value {
    json!({"containerID": pod.sandbox.container, "ifname": "eth0"})
}

#[test]
fn gc_removes_what_the_runtime_no_longer_lists() {
    let lab = world();
    let node = lab.node("n1");
    let (ours, theirs) = (fresh("gc"), fresh("gc"));
    let pods: Vec<Pod<'_>> = (0..4).map(|_| Pod::new(&lab, node, "gc")).collect();
    let results: Vec<Value> = pods[..3].iter().map(|pod| add(pod, &ours)).collect();
    let foreign = add(&pods[3], &theirs);
    let gc = |more: Value| -> CniOutcome {
        let text = config("1.1.0", &json!({"name": ours})).to_string();
        let mut conf: Value = serde_json::from_str(&text).unwrap();
        conf.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        e2e::CniCall::new("GC", conf.to_string()).run(node).unwrap()
    };
    let alive = |index: usize| {
        let (pod, result) = (&pods[index], results.get(index).unwrap_or(&foreign));
        let network = if index == 3 { &theirs } else { &ours };
        let more = json!({"name": network, "prevResult": result});
        pod.run("CHECK", "1.1.0", &more).success
    };

    // No list is no list of nothing.
    assert_eq!(gc(json!({})).result().unwrap(), Value::Null);
    assert!((0..4).all(alive));

    let all: Vec<Value> = pods[..3].iter().map(attachment).collect();
    gc(json!({"cni.dev/valid-attachments": all}))
        .result()
        .unwrap();
    assert!((0..4).all(alive));

    // The same container with another interface is another attachment.
    let other_interface = json!({"containerID": pods[1].sandbox.container, "ifname": "net1"});
    let part = [
        attachment(&pods[0]),
        other_interface,
        json!({"containerID": "gone", "ifname": "eth0"}),
    ];
    gc(json!({"cni.dev/valid-attachments": part}))
        .result()
        .unwrap();
    assert_eq!(
        (0..4).map(alive).collect::<Vec<_>>(),
        [true, false, false, true]
    );
    pods[1].left_nothing();
    pods[2].left_nothing();
    // The runtime may still call DEL for what it gave up.
    pods[1].del("1.1.0");

    pods[0].sandbox.remove().unwrap();
    gc(json!({"cni.dev/valid-attachments": []}))
        .result()
        .unwrap();
    pods[0].left_nothing();
    assert!(alive(3), "another network's attachments are another GC's");

    let broken = gc(json!({"cni.dev/valid-attachments": [{"containerID": 3}]}));
    let sentence = format!("network {ours}: the configuration is invalid");
    broken.refused(7, &[&sentence], "Correct the network's conflist");
    assert!(alive(3));
    pods[3].del("1.1.0");
}
