//! kill -9 of cni-node between any two steps of ADD and DEL, and what kubelet does then.

use std::time::Duration;

use e2e::{CniLab, Node, until};

use crate::pods::{add, call, del, reaches, sandbox, scheduled, swept};

const ADD_STEPS: [&str; 4] = [
    "add::begun",
    "add::linked",
    "add::plugged",
    "add::installed",
];
const DEL_STEPS: [&str; 3] = ["del::begun", "del::unplugged", "del::forgotten"];

/// Starts cni-node so that it dies by SIGKILL at a step.
fn mine(lab: &CniLab, node: &Node, step: &str) {
    lab.restart_daemon(node, &[("OUTBOARD_KILL_AT", step)])
        .unwrap();
}

fn died(lab: &CniLab, node: &Node, step: &str) {
    let daemon = lab.daemon(node);
    until(
        &format!("cni-node to die at {step}"),
        Duration::from_secs(5),
        || Ok((!daemon.alive()).then_some(())),
    )
    .unwrap();
}

#[test]
fn the_steps_are_those_of_the_daemon() {
    let ours = [&ADD_STEPS[..], &DEL_STEPS].concat();
    let source = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../cni/node/src/lib.rs"),
    )
    .unwrap();
    let list = source.split("pub const FAILPOINTS").nth(1).unwrap();
    let list = list.split("];").next().unwrap();
    let theirs: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    assert_eq!(theirs, ours);
}

#[test]
fn killed_at_every_step_of_an_add() {
    let lab = CniLab::up(1).unwrap();
    let node = lab.node("n1");
    for step in ADD_STEPS {
        let row = scheduled(&lab, node, &step.replace("::", "-"));
        let old = sandbox(node);
        mine(&lab, node, step);
        let failed = call("ADD", &old, &row);
        failed.refused(
            11,
            &["cni-node", "ended before it answered ADD"],
            "will try again",
        );
        died(&lab, node, step);

        lab.restart_daemon(node, &[]).unwrap();
        // An ADD that had not ended is undone before the daemon serves; one that had only not been reported waits for its DEL.
        if step != "add::installed" {
            swept(&lab, node);
        }
        del(&old, &row);
        old.remove().unwrap();
        swept(&lab, node);
        let new = sandbox(node);
        add(&new, &row);
        reaches(&new, "10.244.0.1");
        del(&new, &row);
        swept(&lab, node);
    }
}

#[test]
fn killed_in_an_add_whose_sandbox_is_never_heard_of_again() {
    let lab = CniLab::up(1).unwrap();
    let node = lab.node("n1");
    for step in ADD_STEPS {
        let row = scheduled(&lab, node, &step.replace("::", "-"));
        let old = sandbox(node);
        mine(&lab, node, step);
        assert!(!call("ADD", &old, &row).success);
        died(&lab, node, step);
        // The runtime lost it, namespace and all; the new sandbox comes first.
        old.remove().unwrap();
        lab.start_daemon(node, &[]).unwrap();
        let new = sandbox(node);
        add(&new, &row);
        reaches(&new, "10.244.0.1");
        let remains = lab.remains(node).unwrap();
        let counts = (
            remains.ports.len(),
            remains.links.len(),
            remains.records.len(),
        );
        assert_eq!(counts, (1, 1, 1), "{step}: {remains:?}");
        del(&new, &row);
        swept(&lab, node);
    }
}

#[test]
fn killed_at_every_step_of_a_del() {
    let lab = CniLab::up(1).unwrap();
    let node = lab.node("n1");
    for step in DEL_STEPS {
        let row = scheduled(&lab, node, &step.replace("::", "-"));
        let old = sandbox(node);
        mine(&lab, node, step);
        add(&old, &row);
        // Nobody starts it again in time.
        call("DEL", &old, &row).refused(11, &["cni-node does not answer"], "will try again");
        died(&lab, node, step);
        // The new sandbox of the same pod comes before the retry of the DEL.
        lab.restart_daemon(node, &[]).unwrap();
        let new = sandbox(node);
        add(&new, &row);
        del(&old, &row);
        reaches(&new, "10.244.0.1");
        old.remove().unwrap();

        // The next one is restarted while the plugin still tries.
        mine(&lab, node, step);
        std::thread::scope(|scope| {
            let deleting = scope.spawn(|| call("DEL", &new, &row));
            died(&lab, node, step);
            lab.start_daemon(node, &[]).unwrap();
            deleting.join().unwrap().result().unwrap();
        });
        lab.wait_ready(node).unwrap();
        swept(&lab, node);
    }
}

#[test]
fn running_pods_do_not_notice_a_killed_daemon() {
    let lab = CniLab::up(1).unwrap();
    let node = lab.node("n1");
    let (one, two) = (scheduled(&lab, node, "one"), scheduled(&lab, node, "two"));
    let (a, b) = (sandbox(node), sandbox(node));
    add(&a, &one);
    add(&b, &two);
    reaches(&a, &two.v4());
    lab.daemon(node).kill9().unwrap();
    a.ping(&two.v4()).unwrap();
    // While nobody looks: a sandbox goes away, and somebody removes the other's port.
    b.remove().unwrap();
    node.script("for p in $(ovs-vsctl --bare --columns=name find interface external_ids:outboard=pod); do ovs-vsctl del-port $p; done").unwrap();
    lab.start_daemon(node, &[]).unwrap();
    lab.wait_ready(node).unwrap();
    reaches(&a, "10.244.0.1");
    let remains = lab.remains(node).unwrap();
    let counts = (
        remains.ports.len(),
        remains.links.len(),
        remains.records.len(),
    );
    assert_eq!(counts, (1, 1, 1), "{remains:?}");
    del(&b, &two);
    del(&a, &one);
    swept(&lab, node);
}
