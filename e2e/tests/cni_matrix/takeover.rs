//! Two sandboxes of one pod, and two pods of one name: the younger one has the port, the older one's DEL touches nothing.

use e2e::{CniSandbox, PodSpec};
use rstest::rstest;
use serde_json::json;

use crate::world::{Pod, external_id, fresh, host_link, world};

#[rstest]
fn a_late_del_of_the_older_sandbox_touches_nothing(
    #[values("0.3.1", "0.4.0", "1.0.0", "1.1.0")] version: &str,
) {
    let lab = world();
    let node = lab.node("n1");
    let old = Pod::new(&lab, node, "twice");
    let old_result = old.add(version);
    old.reaches("10.244.0.1");

    // kubelet has lost sight of the first sandbox: a second one of the same pod, before the DEL.
    let young = Pod {
        row: old.row.clone(),
        sandbox: CniSandbox::create(node, &fresh("sandbox")).unwrap(),
    };
    let result = young.add(version);
    assert_eq!(
        external_id(node, host_link(&old_result), "iface-id"),
        "",
        "two claim one port"
    );
    young.reaches("10.244.0.1");
    young.reaches("fd00:10:244::1");

    old.del(version);
    old.left_nothing();
    assert_eq!(
        external_id(node, host_link(&result), "ovn-installed"),
        "true"
    );
    young.reaches("10.244.0.1");
    if version >= "0.4.0" {
        young.check(version, &result).result().unwrap();
    }
    old.del(version);
    young.reaches("10.244.0.1");
    young.del(version);
    young.left_nothing();
}

#[test]
fn a_pod_recreated_under_its_name_takes_the_port_over() {
    let lab = world();
    let node = lab.node("n1");
    let old = Pod::new(&lab, node, "set");
    let old_result = old.add("1.1.0");

    // cni-controller has moved the port to the new pod (a StatefulSet's) while the old sandbox is still there.
    let mut row = old.row.clone();
    let spec = PodSpec {
        uid: fresh("uid"),
        ..row.spec.clone()
    };
    if let api::Role::Pod(pod) = &mut row.facts.role {
        pod.uid.clone_from(&spec.uid);
    }
    row.spec = spec;
    lab.network.update(&row).unwrap();
    let sandbox = CniSandbox::create(node, &fresh("sandbox")).unwrap();
    let young = Pod { row, sandbox };
    let result = young.add("1.1.0");
    young.reaches("10.244.0.1");
    assert_eq!(external_id(node, host_link(&old_result), "iface-id"), "");

    // A retry for the pod that is gone finds that the port is not its own any more.
    let again = CniSandbox::create(node, &fresh("sandbox")).unwrap();
    let ghost = Pod {
        row: old.row.clone(),
        sandbox: again,
    };
    let late = ghost.run("ADD", "1.1.0", &json!({"timeoutSeconds": 1}));
    let sentence = [
        &format!("Pod default/{}", ghost.row.spec.name),
        "earlier pod",
        &young.row.spec.uid,
    ];
    late.refused(11, &sentence.map(|part| part as &str), "cni-controller");
    ghost.left_nothing();

    old.del("1.1.0");
    young.reaches("10.244.0.1");
    assert_eq!(
        external_id(node, host_link(&result), "ovn-installed"),
        "true"
    );
    young.del("1.1.0");
}

#[test]
fn of_two_sandboxes_at_once_one_has_the_port() {
    let lab = world();
    let node = lab.node("n2");
    for _ in 0..5 {
        let one = Pod::new(&lab, node, "race");
        let two = Pod {
            row: one.row.clone(),
            sandbox: CniSandbox::create(node, &fresh("sandbox")).unwrap(),
        };
        let both = [&one, &two];
        let outcomes = std::thread::scope(|scope| {
            let adding = both.map(|pod| scope.spawn(|| pod.run("ADD", "1.1.0", &json!({}))));
            adding.map(|adding| adding.join().unwrap())
        });
        for (outcome, pod) in outcomes.iter().zip(both) {
            if !outcome.success {
                outcome.refused(
                    11,
                    &[&pod.row.port, "taken over by a younger sandbox"],
                    "pod runs",
                );
                pod.left_nothing();
            }
        }
        let find = [
            "ovs-vsctl",
            "--bare",
            "--columns=external_ids",
            "find",
            "interface",
        ];
        let claim = format!("external_ids:iface-id={}", one.row.port);
        let ports = node.exec(&[&find[..], &[&claim]].concat()).unwrap();
        let holders: Vec<&Pod<'_>> = both
            .into_iter()
            .filter(|pod| ports.contains(&pod.sandbox.container))
            .collect();
        assert_eq!(holders.len(), 1, "{ports}");
        holders[0].reaches("10.244.0.1");
        for pod in both {
            pod.del("1.1.0");
            pod.left_nothing();
        }
    }
}
