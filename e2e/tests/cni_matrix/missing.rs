//! An ADD that cannot succeed says what is missing; STATUS says so before anybody asks for an ADD.

use std::time::Duration;

use e2e::{CniLab, CniOutcome, Node, PodSpec, until};
use serde_json::json;

use crate::world::{Pod, fresh, world};

fn short(pod: &Pod<'_>, seconds: u32) -> CniOutcome {
    pod.run("ADD", "1.1.0", &json!({"timeoutSeconds": seconds}))
}

#[test]
fn no_row_to_work_with() {
    let lab = world();
    let node = lab.node("n1");

    // Never scheduled.
    let pod = Pod::unwritten(&lab, node, &PodSpec::new(&fresh("none"), "n1"));
    let name = format!("Pod default/{}", pod.row.spec.name);
    let sentence = [
        &name,
        &pod.row.spec.uid as &str,
        "no address is allocated on chassis n1 for eth0",
    ];
    short(&pod, 1).refused(11, &sentence, "cni-controller's log");
    pod.left_nothing();

    // Scheduled onto the other node.
    let pod = Pod::of(&lab, node, &PodSpec::new(&fresh("elsewhere"), "n2"));
    let sentence = ["no address is allocated on chassis n1", "marker node.n1"];
    short(&pod, 1).refused(11, &sentence, "pod's events");
    pod.left_nothing();

    // The port is marked for this node, but OVN is told to let another one have it.
    let mut pod = Pod::unwritten(&lab, node, &PodSpec::new(&fresh("torn"), "n1"));
    pod.row.spec.chassis = "n2".into();
    lab.network.write(std::slice::from_ref(&pod.row)).unwrap();
    let sentence = [
        &pod.row.port as &str,
        "its flows are not in place",
        "requested chassis is n2",
    ];
    short(&pod, 2).refused(11, &sentence, "cni-controller's log");
    pod.left_nothing();

    // An earlier pod's, of the same name.
    let mut pod = Pod::new(&lab, node, "later");
    let earlier = std::mem::replace(&mut pod.row.spec.uid, fresh("uid"));
    let sentence = ["earlier pod of that name", &earlier, &pod.row.spec.uid];
    short(&pod, 1).refused(11, &sentence, "cni-controller");

    // A row that nobody can read.
    let pod = Pod::new(&lab, node, "garbled");
    let set = [
        "set",
        "logical_switch_port",
        &pod.row.port,
        "external_ids:ips=everywhere",
    ];
    lab.ovn.central.nbctl(&set).unwrap();
    until("the row to change", Duration::from_secs(10), || {
        let outcome = short(&pod, 1);
        Ok(if outcome.success {
            pod.del("1.1.0");
            None
        } else {
            Some(outcome)
        })
    })
    .unwrap()
    .refused(11, &[&pod.row.port, "cannot be used", "ips"], "one version");

    // The row comes while the ADD waits.
    let pod = Pod::unwritten(&lab, node, &PodSpec::new(&fresh("late"), "n1"));
    let result = std::thread::scope(|scope| {
        let adding = scope.spawn(|| short(&pod, 20));
        until("the ADD to begin", Duration::from_secs(10), || {
            let sockets = node.exec(&["ss", "-Hx", "state", "established"])?;
            Ok(sockets.contains("/run/outboard/cni.sock").then_some(()))
        })
        .unwrap();
        lab.network.write(std::slice::from_ref(&pod.row)).unwrap();
        adding.join().unwrap()
    });
    result.result().unwrap();
    pod.del("1.1.0");
}

/// A lab of its own, one node: its parts are stopped.
struct Broken {
    lab: CniLab,
}

impl Broken {
    fn node(&self) -> &Node {
        self.lab.node("n1")
    }

    fn status(&self, code: u64, sentence: &[&str]) {
        // It may take the daemon a moment to see it.
        let found = until("STATUS to fail", Duration::from_secs(15), || {
            let status = self.lab.status(self.node())?;
            let seen = !status.success && sentence.iter().all(|part| status.stdout.contains(part));
            anyhow::ensure!(seen, "{}", status.stdout);
            Ok(Some(status))
        });
        let all = [&["No pod can be attached on this node"], sentence].concat();
        found.unwrap().refused(code, &all, "/readyz");
    }
}

#[test]
fn parts_of_ovn_are_missing() {
    let broken = Broken {
        lab: CniLab::up(1).unwrap(),
    };
    let (lab, node) = (&broken.lab, broken.node());
    let running = Pod::new(lab, node, "running");
    let result = running.add("1.1.0");
    let alive = || running.reaches("10.244.0.1");
    alive();

    // ovn-controller dead: what runs goes on, nothing new.
    let process = node.process("ovn-controller");
    process.kill9().unwrap();
    let pod = Pod::new(lab, node, "controller");
    let sentence = [
        &pod.row.port as &str,
        "its flows are not in place",
        "ovn-controller does not answer",
    ];
    short(&pod, 3).refused(11, &sentence, "tries again");
    pod.left_nothing();
    broken.status(51, &["ovn-controller does not answer", "see that it runs"]);
    alive();

    // br-int missing, too.
    node.exec(&["ovs-vsctl", "--timeout=10", "del-br", "br-int"])
        .unwrap();
    let pod = Pod::new(lab, node, "bridge");
    let sentence = ["integration bridge br-int does not exist"];
    short(&pod, 1).refused(11, &sentence, "ovn-controller makes it");
    pod.left_nothing();
    broken.status(51, &["br-int does not exist"]);
    process.restart().unwrap();
    lab.restart_daemon(node, &[]).unwrap();
    alive();
    running.check("1.1.0", &result).result().unwrap();

    // ovs-vswitchd dead.
    let process = node.process("ovs-vswitchd");
    process.kill9().unwrap();
    let pod = Pod::new(lab, node, "vswitchd");
    let sentence = [
        &pod.row.port as &str,
        "ovs-vswitchd has not taken up the port",
    ];
    short(&pod, 2).refused(11, &sentence, "ovs-vswitchd runs on this node");
    process.restart().unwrap();
    alive();
    pod.left_nothing();

    // ovsdb-server dead: a DEL is served all the same, and its port goes when the database is back.
    let process = node.process("ovsdb-server");
    let (gone, late) = (Pod::new(lab, node, "gone"), Pod::new(lab, node, "late"));
    gone.add("1.1.0");
    process.kill9().unwrap();
    let sentence = ["local Open vSwitch database cannot be used"];
    until("the daemon to see it", Duration::from_secs(10), || {
        Ok((!lab.status(node)?.success).then_some(()))
    })
    .unwrap();
    short(&late, 1).refused(11, &sentence, "ovsdb-server runs on this node");
    broken.status(51, &sentence);
    gone.del("1.1.0");
    gone.sandbox
        .exec(&["ip", "link", "show", "dev", "eth0"])
        .unwrap_err();
    process.restart().unwrap();
    lab.wait_ready(node).unwrap();
    until(
        "the port of the deleted pod to go",
        Duration::from_secs(40),
        || {
            let find = ["ovs-vsctl", "--bare", "--columns=name", "find", "interface"];
            let mine = format!("external_ids:sandbox={}", gone.sandbox.container);
            Ok(node
                .exec(&[&find[..], &[&mine]].concat())?
                .is_empty()
                .then_some(()))
        },
    )
    .unwrap();
    alive();

    // The journal cannot be written: the attachment is undone.
    let journal = "/var/lib/outboard/attachments";
    node.exec(&["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", journal])
        .unwrap();
    let pod = Pod::new(lab, node, "journal");
    let sentence = ["journal of attachments cannot be written", journal];
    short(&pod, 20).refused(5, &sentence, "not full");
    node.exec(&["umount", journal]).unwrap();
    pod.left_nothing();
    pod.add("1.1.0");
    pod.del("1.1.0");

    // The southbound database is away: a pod that nobody knows; one whose address is known here.
    let known = Pod::new(lab, node, "known");
    known.add("1.1.0");
    known.del("1.1.0");
    let unknown = Pod::unwritten(lab, node, &PodSpec::new(&fresh("unknown"), "n1"));
    let process = node.process("sb");
    process.kill9().unwrap();
    broken.status(51, &["southbound database cannot be used"]);
    let name = format!("Pod default/{}", unknown.row.spec.name);
    let sentence = [
        &name as &str,
        "its address is not known here",
        "southbound database cannot be asked",
    ];
    short(&unknown, 1).refused(11, &sentence, "OVN databases run");
    let sentence = [
        &known.row.port as &str,
        "ovn-controller is not connected to the southbound database",
    ];
    short(&known, 2).refused(11, &sentence, "tries again");
    alive();
    // Nothing runs here any more: nothing is limited.
    running.del("1.1.0");
    broken.status(50, &["southbound database cannot be used"]);
    process.restart().unwrap();
    lab.wait_ready(node).unwrap();
    let again = known.add("1.1.0");
    assert_eq!(again["interfaces"][1]["name"], "eth0");
    known.reaches("10.244.0.1");
    known.del("1.1.0");
    assert!(
        lab.remains(node).unwrap().is_empty(),
        "{:?}",
        lab.remains(node).unwrap()
    );
}
