//! Many pods at once.

use e2e::{CniLab, CniSandbox, Node, PodRow, PodSpec};

use crate::pods::{call, reaches, sandbox, swept};

const PODS: usize = 60;

/// Runs a verb for all pods at the same time; each must succeed.
fn all_at_once(verb: &str, pods: &[(CniSandbox<'_>, PodRow)]) {
    std::thread::scope(|scope| {
        let calls: Vec<_> = pods
            .iter()
            .map(|(sandbox, row)| scope.spawn(move || call(verb, sandbox, row)))
            .collect();
        for call in calls {
            call.join().unwrap().result().unwrap();
        }
    });
}

fn pods<'a>(lab: &CniLab, node: &'a Node, prefix: &str) -> Vec<(CniSandbox<'a>, PodRow)> {
    let specs: Vec<_> = (0..PODS)
        .map(|number| PodSpec::new(&format!("{prefix}-{number}"), node.name()))
        .collect();
    let rows = lab.network.schedule_all(&specs).unwrap();
    rows.into_iter().map(|row| (sandbox(node), row)).collect()
}

#[test]
fn sixty_pods_come_and_go_at_once() {
    let lab = CniLab::up(1).unwrap();
    let node = lab.node("n1");
    let pods = pods(&lab, node, "burst");
    all_at_once("ADD", &pods);
    let remains = lab.remains(node).unwrap();
    let counts = (
        remains.ports.len(),
        remains.links.len(),
        remains.records.len(),
    );
    assert_eq!(counts, (PODS, PODS, PODS));
    for (sandbox, _) in &pods {
        reaches(sandbox, "10.244.0.1");
    }
    let (first, last) = (&pods[0].0, &pods[PODS - 1].1);
    reaches(first, &last.v4());

    // Half of the sandboxes go before their DEL.
    for (sandbox, _) in pods.iter().step_by(2) {
        sandbox.remove().unwrap();
    }
    all_at_once("DEL", &pods);
    swept(&lab, node);
}

#[test]
fn a_daemon_killed_in_a_burst_leaves_nothing() {
    let lab = CniLab::up(1).unwrap();
    let node = lab.node("n1");
    let pods = pods(&lab, node, "storm");
    std::thread::scope(|scope| {
        let calls: Vec<_> = pods
            .iter()
            .map(|(sandbox, row)| scope.spawn(move || call("ADD", sandbox, row)))
            .collect();
        let journal = node.path("/var/lib/outboard/attachments");
        e2e::until(
            "ADDs to be under way",
            std::time::Duration::from_secs(20),
            || Ok((std::fs::read_dir(&journal)?.count() > PODS / 3).then_some(())),
        )
        .unwrap();
        lab.daemon(node).kill9().unwrap();
        lab.start_daemon(node, &[]).unwrap();
        for call in calls {
            call.join().unwrap();
        }
    });
    lab.wait_ready(node).unwrap();
    // kubelet: DEL of every sandbox, whatever became of its ADD.
    all_at_once("DEL", &pods);
    swept(&lab, node);
    all_at_once("ADD", &pods);
    reaches(&pods[PODS / 2].0, "10.244.0.1");
    all_at_once("DEL", &pods);
    swept(&lab, node);
}
