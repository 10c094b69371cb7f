//! kill -9 of the node's other services while pods exist: the pods go on, or come back, and so does ADD.

use std::time::Duration;

use e2e::{CniLab, until};

use crate::pods::{add, call, del, reaches, sandbox, scheduled, swept};

#[test]
fn services_are_killed_under_running_pods() {
    let lab = CniLab::up(2).unwrap();
    let (n1, n2) = (lab.node("n1"), lab.node("n2"));
    let (near, far) = (scheduled(&lab, n1, "near"), scheduled(&lab, n2, "far"));
    let (a, b) = (sandbox(n1), sandbox(n2));
    add(&a, &near);
    add(&b, &far);
    reaches(&a, &far.v4());
    for service in [
        "ovn-controller",
        "ovs-vswitchd",
        "ovsdb-server",
        "northd",
        "sb",
    ] {
        n1.process(service).restart().unwrap();
        lab.wait_ready(n1).unwrap();
        lab.wait_ready(n2).unwrap();
        for address in [far.v4(), far.v6()] {
            reaches(&a, &address);
        }
        // And new pods come and go.
        let row = scheduled(&lab, n1, &format!("after-{service}"));
        let sandbox = sandbox(n1);
        add(&sandbox, &row);
        reaches(&sandbox, &far.v4());
        del(&sandbox, &row);
    }
    del(&a, &near);
    del(&b, &far);
    swept(&lab, n1);
    swept(&lab, n2);
}

#[test]
fn services_die_in_the_middle_of_an_add() {
    let lab = CniLab::up(1).unwrap();
    let node = lab.node("n1");
    for service in ["ovn-controller", "ovs-vswitchd", "ovsdb-server"] {
        let row = scheduled(&lab, node, service);
        let sandbox = sandbox(node);
        lab.restart_daemon(node, &[]).unwrap();
        let outcome = std::thread::scope(|scope| {
            let adding = scope.spawn(|| call("ADD", &sandbox, &row));
            node.process(service).restart().unwrap();
            adding.join().unwrap()
        });
        // It succeeds, or says what was missing; then the runtime gives the sandbox up and makes another one.
        if !outcome.success {
            assert!(outcome.stdout.contains("\"code\":11"), "{outcome:?}");
            del(&sandbox, &row);
        }
        lab.wait_ready(node).unwrap();
        let next = crate::pods::sandbox(node);
        add(&next, &row);
        reaches(&next, "10.244.0.1");
        del(&sandbox, &row);
        del(&next, &row);
    }
    swept(&lab, node);
}

/// The name of a link comes back before ovs-vswitchd has looked at its going: it must not keep the old, dead one.
#[test]
fn an_attachment_is_made_again_while_vswitchd_is_busy() {
    let lab = CniLab::up(1).unwrap();
    let node = lab.node("n1");
    let row = scheduled(&lab, node, "again");
    let sandbox = sandbox(node);
    add(&sandbox, &row);
    reaches(&sandbox, "10.244.0.1");
    let pid = node.process("ovs-vswitchd").pid().unwrap().to_string();
    node.exec(&["kill", "-STOP", &pid]).unwrap();
    del(&sandbox, &row);
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| add(&sandbox, &row));
        until("the ADD to be asked", Duration::from_secs(10), || {
            let asked = node.exec(&["ss", "-xH", "state", "established"])?;
            Ok(asked.contains("/cni.sock").then_some(()))
        })
        .unwrap();
        // A new link of the name would be taken for the former one.
        let link = ["ip", "link", "show", "dev", "eth0"];
        assert!(sandbox.exec(&link).is_err() && !adding.is_finished());
        node.exec(&["kill", "-CONT", &pid]).unwrap();
        adding.join().unwrap();
    });
    reaches(&sandbox, "10.244.0.1");
    del(&sandbox, &row);
    swept(&lab, node);
}
