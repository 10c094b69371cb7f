//! ADDs that wait for what does not come: they hold nobody up.

use std::time::{Duration, Instant};

use e2e::{CniLab, CniOutcome, CniSandbox, Node, PodRow, PodSpec, until};

use crate::pods::{add, call, del, reaches, sandbox, swept};

/// Runs an ADD of a pod that nobody has scheduled, and something else while it waits.
fn while_waiting(
    node: &Node,
    sandbox: &CniSandbox<'_>,
    row: &PodRow,
    meanwhile: impl FnOnce(),
) -> CniOutcome {
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| call("ADD", sandbox, row));
        until("the ADD to begin", Duration::from_secs(10), || {
            let sockets = node.exec(&["ss", "-Hx", "state", "established"])?;
            Ok(sockets.contains("/run/outboard/cni.sock").then_some(()))
        })
        .unwrap();
        meanwhile();
        adding.join().unwrap()
    })
}

#[test]
fn neither_a_del_nor_the_daemons_end_waits_for_an_add() {
    let lab = CniLab::up(1).unwrap();
    let node = lab.node("n1");
    let row = lab.network.allocate(&PodSpec::new("late", "n1"));
    let old = sandbox(node);
    let started = Instant::now();

    // The runtime has given the sandbox up; its ADD, of half a minute, is still at it.
    let given_up = while_waiting(node, &old, &row, || del(&old, &row));
    let sentence = [
        "ADD of eth0 of sandbox",
        &old.container,
        "given up",
        "a DEL of the same attachment",
    ];
    given_up.refused(11, &sentence, "tries again");

    let given_up = while_waiting(node, &old, &row, || lab.daemon(node).terminate().unwrap());
    let sentence = [
        "ADD of eth0 of sandbox",
        &old.container,
        "given up",
        "cni-node ends",
    ];
    given_up.refused(11, &sentence, "tries again");
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );

    lab.start_daemon(node, &[]).unwrap();
    lab.network.write(std::slice::from_ref(&row)).unwrap();
    add(&old, &row);
    reaches(&old, "10.244.0.1");
    del(&old, &row);
    swept(&lab, node);
}
