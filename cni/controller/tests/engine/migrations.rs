//! A virtual machine that migrates: its ports are two pods' for a while, and then the next one's.

use crate::hosts::dpu;
use crate::server::Server;
use crate::world::{Controller, View, settings};
use api::{MigrationTarget, PortFacts, VirtualMachineInstanceMigration};
use cni_controller::index::Settings;
use k8s_openapi::api::core::v1::{Node, Pod};
use ovsdb::Uuid;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The machine's ports: eth0, and a socket.
const ETH0: &str = "ns/db/default";
const SOCKET: &str = "ns/db/storage/net1";
/// Until all pods are made, seconds of 2026-01-02T03:04.
const FIRST: u32 = 1;

/// A pod of the machine, made `second` seconds after the minute, perhaps as the target of a migration.
struct Launcher {
    name: &'static str,
    node: &'static str,
    second: u32,
    migration: Option<&'static str>,
    networks: Value,
    ips: Value,
}

fn launcher(name: &'static str, node: &'static str, second: u32) -> Launcher {
    let networks = json!([{"name": "fast", "namespace": "ns", "interface": "net1"}]);
    Launcher {
        name,
        node,
        second,
        migration: None,
        networks,
        ips: json!([]),
    }
}

impl Launcher {
    fn of(mut self, migration: &'static str) -> Self {
        self.migration = Some(migration);
        self
    }

    fn asks(mut self, ip: &str) -> Self {
        self.networks[0]["ips"] = json!([ip]);
        self
    }

    /// kubelet has said what its address is.
    fn runs(mut self) -> Self {
        self.ips = json!([{"ip": "10.244.0.200"}]);
        self
    }

    /// Its UID is its name.
    fn put(&self, controller: &Controller) {
        self.put_as(controller, "db");
    }

    /// As a pod of that machine.
    fn put_as(&self, controller: &Controller, vm: &str) {
        let mut labels = json!({"kubevirt.io": "virt-launcher"});
        if let Some(migration) = self.migration {
            labels["kubevirt.io/migrationJobUID"] = migration.into();
        }
        controller.put::<Pod>(json!({
            "metadata": {
                "name": self.name, "namespace": "ns", "uid": self.name, "labels": labels,
                "creationTimestamp": format!("2026-01-02T03:04:{:02}Z", self.second),
                "annotations": {"k8s.v1.cni.cncf.io/networks": self.networks.to_string()},
                "ownerReferences": [{
                    "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": vm, "uid": "vm", "controller": true,
                }],
            },
            "spec": {"nodeName": self.node, "containers": []},
            "status": {"phase": "Running", "podIPs": self.ips},
        }));
    }
}

/// A controller with nodes n1, n2, n3 and the network `fast`, of sockets.
fn cluster(server: &Server, identity: &str) -> Controller {
    let controller = Controller::start(server, identity);
    populate(&controller);
    controller
}

fn populate(controller: &Controller) {
    for node in ["n2", "n3"] {
        controller.put::<Node>(json!({"metadata": {"name": node, "uid": node}}));
    }
    controller.subnet(
        "storage",
        &json!({"cidrs": ["10.8.0.0/24"], "namespaces": ["*"]}),
    );
    controller.put::<api::NetworkAttachmentDefinition>(json!({
        "metadata": {"name": "fast", "namespace": "ns"},
        "spec": {"config": r#"{"type": "outboard", "subnet": "storage", "kind": "vhostuser"}"#},
    }));
}

fn migration(controller: &Controller, uid: &str, phase: &str) {
    migration_of(controller, "db", uid, phase);
}

fn migration_of(controller: &Controller, vm: &str, uid: &str, phase: &str) {
    controller.put::<VirtualMachineInstanceMigration>(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceMigration",
        "metadata": {"name": format!("migration-{uid}"), "namespace": "ns", "uid": uid},
        "spec": {"vmiName": vm}, "status": {"phase": phase},
    }));
}

/// What is said of a port.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    row: Uuid,
    pod: String,
    target: Option<MigrationTarget>,
    chassis: Vec<String>,
    ips: Vec<String>,
    mac: String,
    options: Vec<(String, String)>,
}

fn said(view: &View, port: &str) -> Option<Said> {
    let facts: PortFacts = view.ports().remove(port)?;
    let rows = view.rows("Logical_Switch_Port");
    let row = rows
        .iter()
        .find(|row| row.get("name").unwrap().as_str() == Some(port))?;
    let text = |atom: &ovsdb::Atom| atom.as_str().unwrap().to_owned();
    let pod = facts.pod().unwrap().clone();
    assert_eq!(pod.name, pod.uid);
    Some(Said {
        row: row.uuid(),
        pod: pod.name,
        target: pod.target,
        chassis: facts.chassis.iter().cloned().collect(),
        ips: facts.ips.iter().map(ToString::to_string).collect(),
        mac: facts.mac.to_string(),
        options: row
            .get("options")
            .unwrap()
            .pairs()
            .map(|(k, v)| (text(k), text(v)))
            .collect(),
    })
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

impl Said {
    /// The same port, where `pod` alone has it, on `node`.
    fn with(&self, pod: &str, node: &str) -> Self {
        Self {
            pod: pod.to_owned(),
            target: None,
            chassis: vec![node.to_owned()],
            options: vec![pair("iface-id-ver", pod), pair("requested-chassis", node)],
            ..self.clone()
        }
    }

    /// The same port while it comes to `target` on `node`.
    fn coming(&self, target: &str, node: &str, silent: bool) -> Self {
        let both = [self.chassis[0].clone(), node.to_owned()];
        let mut options = vec![pair("requested-chassis", &both.join(","))];
        if silent {
            options.insert(0, pair("activation-strategy", "rarp"));
        }
        Self {
            target: Some(MigrationTarget {
                name: target.to_owned(),
                uid: target.to_owned(),
            }),
            chassis: BTreeSet::from(both).into_iter().collect(),
            options,
            ..self.clone()
        }
    }
}

/// Waits until both ports are as they should be.
async fn both(view: &View, what: &str, eth0: &Said, socket: &Said) {
    let is_so = |view: &View| {
        let are =
            said(view, ETH0).as_ref() == Some(eth0) && said(view, SOCKET).as_ref() == Some(socket);
        are.then_some(())
    };
    view.until(what, is_so).await;
}

async fn started(view: &View, controller: &Controller) -> (Said, Said) {
    launcher("one", "n1", FIRST).put(controller);
    let both = |view: &View| Some((said(view, ETH0)?, said(view, SOCKET)?));
    let (eth0, socket) = view.until("the machine has ports", both).await;
    assert_eq!(
        (&eth0, &socket),
        (&eth0.with("one", "n1"), &socket.with("one", "n1"))
    );
    (eth0, socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migrating_machine_is_on_two_chassis_and_then_on_the_targets_with_the_same_rows() {
    let server = Server::northbound();
    let (view, mut controller) = (View::of(&server).await, cluster(&server, "a"));
    let (eth0, socket) = started(&view, &controller).await;

    // The pod comes before the migration that it names is known: it waits, and is told why.
    launcher("two", "n2", 9).of("m1").put(&controller);
    for _ in 0..2 {
        assert_eq!(controller.notice().await.problem.reason, "PortHeld");
    }
    migration(&controller, "m1", "Scheduling");
    let (to_two, socket_to_two) = (
        eth0.coming("two", "n2", true),
        socket.coming("two", "n2", false),
    );
    both(&view, "both are named", &to_two, &socket_to_two).await;
    // A failed one changes nothing; its pod may be there still.
    migration(&controller, "m1", "Failed");
    both(&view, "it is the first one's alone", &eth0, &socket).await;
    controller.remove::<Pod>("ns", "two");
    controller.remove::<VirtualMachineInstanceMigration>("ns", "migration-m1");

    migration(&controller, "m2", "Pending");
    launcher("three", "n3", 20).of("m2").put(&controller);
    both(
        &view,
        "the next try",
        &eth0.coming("three", "n3", true),
        &socket.coming("three", "n3", false),
    )
    .await;
    migration(&controller, "m2", "Running");
    migration(&controller, "m2", "Succeeded");
    let (eth0, socket) = (eth0.with("three", "n3"), socket.with("three", "n3"));
    both(&view, "the machine has arrived", &eth0, &socket).await;

    // And back, while the pod that it came from is still there.
    migration(&controller, "m3", "Pending");
    launcher("four", "n1", 40).of("m3").put(&controller);
    both(
        &view,
        "back",
        &eth0.coming("four", "n1", true),
        &socket.coming("four", "n1", false),
    )
    .await;
    controller.remove::<Pod>("ns", "one");
    // KubeVirt has cleaned up before it said how it ended.
    controller.remove::<Pod>("ns", "three");
    let (eth0, socket) = (eth0.with("four", "n1"), socket.with("four", "n1"));
    both(&view, "the next pod has it", &eth0, &socket).await;
    migration(&controller, "m3", "Succeeded");
    controller.remove::<VirtualMachineInstanceMigration>("ns", "migration-m3");
    controller.remove::<VirtualMachineInstanceMigration>("ns", "migration-m2");
    // What is written is right: another pod's rows are the only ones that come.
    controller.pod("plain", "plain");
    view.addressed("plain").await;
    both(&view, "nothing has changed", &eth0, &socket).await;
    controller.remove::<Pod>("ns", "four");
    view.until("its ports go with its last pod", |view| {
        said(view, ETH0).is_none().then_some(())
    })
    .await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_only_says_that_it_is_a_target_gets_nothing() {
    let server = Server::northbound();
    let (view, mut controller) = (View::of(&server).await, cluster(&server, "a"));
    let (eth0, socket) = started(&view, &controller).await;
    let refused = async |controller: &mut Controller, pod: &str, reason: &str, says: &str| {
        for _ in 0..2 {
            let notice = controller.notice().await;
            let (about, problem) = (notice.about.to_string(), notice.problem);
            assert_eq!(
                (about, problem.reason),
                (format!("pod/ns/{pod}"), reason),
                "{problem:?}"
            );
            assert!(problem.sentence.contains(says), "{}", problem.sentence);
        }
    };
    // No migration; another machine's.
    migration_of(&controller, "other", "m1", "Running");
    for (pod, uid) in [("forged", "m0"), ("others", "m1")] {
        launcher(pod, "n2", 9).of(uid).put(&controller);
        refused(
            &mut controller,
            pod,
            "PortHeld",
            "belongs to pod ns/one, and no VirtualMachineInstanceMigration",
        )
        .await;
        controller.remove::<Pod>("ns", pod);
    }
    // One that is over: its pod is ending, and nothing is wrong with that.
    migration(&controller, "m2", "Failed");
    launcher("late", "n2", 9).of("m2").put(&controller);
    controller.pod("plain", "plain");
    view.addressed("plain").await;
    both(&view, "it is the first one's", &eth0, &socket).await;
    assert!(controller.notices.try_recv().is_err());
    controller.remove::<Pod>("ns", "late");

    // Two say that they are the one: who is named already stays, and where none is, none gets it.
    migration(&controller, "m3", "Running");
    launcher("two", "n2", 9).of("m3").put(&controller);
    let one_is = (
        eth0.coming("two", "n2", true),
        socket.coming("two", "n2", false),
    );
    both(&view, "one is", &one_is.0, &one_is.1).await;
    launcher("too", "n3", 9).of("m3").put(&controller);
    let says = "and it is migrating to pod ns/two";
    refused(&mut controller, "too", "MigrationRefused", says).await;
    both(&view, "it still is", &one_is.0, &one_is.1).await;
    for pod in ["two", "too"] {
        controller.remove::<Pod>("ns", pod);
    }
    both(&view, "none is there", &eth0, &socket).await;
    migration(&controller, "m3", "Failed");
    for (pod, node) in [("two", "n2"), ("too", "n3")] {
        launcher(pod, node, 9).of("m3").put(&controller);
    }
    migration(&controller, "m3", "Running");
    for _ in 0..4 {
        let problem = controller.notice().await.problem;
        assert_eq!(problem.reason, "MigrationRefused");
        let says = "pods ns/too and ns/two both say that a machine is to migrate to them";
        assert!(problem.sentence.contains(says), "{}", problem.sentence);
    }
    both(&view, "none is", &eth0, &socket).await;
    // Nor when it is over.
    migration(&controller, "m3", "Succeeded");
    for _ in 0..4 {
        assert_eq!(controller.notice().await.problem.reason, "PortHeld");
    }
    both(&view, "none was", &eth0, &socket).await;
    for pod in ["two", "too"] {
        controller.remove::<Pod>("ns", pod);
    }
    migration(&controller, "m4", "Running");

    // Where it runs already.
    launcher("two", "n1", 9).of("m4").put(&controller);
    let says = "it is on node n1, where it runs";
    refused(&mut controller, "two", "MigrationRefused", says).await;
    controller.remove::<Pod>("ns", "two");

    // Behind a DPU an interface is a function of that card.
    controller.put::<api::Dpu>(dpu("p", "n3"));
    controller.put::<Node>(json!({
        "metadata": {"name": "h1", "uid": "h1", "labels": {"iaas.yusur.io/mode": "host"}},
    }));
    launcher("two", "h1", 9).of("m4").put(&controller);
    refused(
        &mut controller,
        "two",
        "MigrationRefused",
        "node h1 is behind a DPU",
    )
    .await;
    both(&view, "not there", &eth0, &socket).await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_starts_in_the_middle_goes_on_and_gives_out_addresses() {
    let server = Server::northbound();
    let view = View::of(&server).await;
    let first = cluster(&server, "a");
    let (eth0, socket) = started(&view, &first).await;
    migration(&first, "m1", "Running");
    launcher("two", "n2", 9).of("m1").runs().put(&first);
    both(
        &view,
        "under way",
        &eth0.coming("two", "n2", true),
        &socket.coming("two", "n2", false),
    )
    .await;
    first.stop().await;
    let next = |identity: &str| {
        let nb = server.client("OVN_Northbound");
        let controller = Controller::standby(nb, None, identity, settings());
        populate(&controller);
        controller
    };

    // The target runs and has addresses that no row of its own has: nothing is lost.
    let second = next("b");
    launcher("one", "n1", FIRST).runs().put(&second);
    launcher("two", "n2", 9).of("m1").runs().put(&second);
    migration(&second, "m1", "Running");
    second.lead();
    second.pod("plain", "plain");
    view.addressed("plain").await;
    both(
        &view,
        "still under way",
        &eth0.coming("two", "n2", true),
        &socket.coming("two", "n2", false),
    )
    .await;
    second.stop().await;

    // Meanwhile it has arrived, and the first pod is gone; or is still ending.
    for left in [false, true] {
        let third = next("c");
        if left {
            launcher("one", "n1", FIRST).runs().put(&third);
        }
        launcher("two", "n2", 9).of("m1").runs().put(&third);
        migration(&third, "m1", "Succeeded");
        third.lead();
        both(
            &view,
            "arrived",
            &eth0.with("two", "n2"),
            &socket.with("two", "n2"),
        )
        .await;
        third.pod("plain", "plain");
        third.pod("more", "more");
        view.addressed("more").await;
        both(
            &view,
            "as before",
            &eth0.with("two", "n2"),
            &socket.with("two", "n2"),
        )
        .await;
        third.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_started_anew_keeps_its_addresses_unless_it_asks_for_others() {
    let server = Server::northbound();
    let (view, controller) = (View::of(&server).await, cluster(&server, "a"));
    let (eth0, socket) = started(&view, &controller).await;
    launcher("two", "n2", 9).put(&controller);
    controller.remove::<Pod>("ns", "one");
    both(
        &view,
        "the same ports",
        &eth0.with("two", "n2"),
        &socket.with("two", "n2"),
    )
    .await;
    launcher("three", "n3", 20)
        .asks("10.8.0.77")
        .put(&controller);
    controller.remove::<Pod>("ns", "two");
    let asked = |view: &View| said(view, SOCKET).filter(|said| said.pod == "three");
    let socket = view.until("it has what it asks for", asked).await;
    assert_eq!(socket.ips, ["10.8.0.77/24"]);
    let same = |view: &View| (said(view, ETH0)? == eth0.with("three", "n3")).then_some(());
    view.until("and its eth0 stays", same).await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_is_rebuilt_in_the_middle_of_a_migration_and_after_it() {
    for phase in ["Running", "Succeeded"] {
        let server = Server::northbound();
        let view = View::of(&server).await;
        let keep = Settings {
            keep_reports: true,
            ..settings()
        };
        let nb = server.client("OVN_Northbound");
        let controller = Controller::standby(nb, None, "a", keep);
        populate(&controller);
        migration(&controller, "m1", phase);
        for mut launcher in [
            launcher("one", "n1", FIRST),
            launcher("two", "n2", 9).of("m1"),
        ] {
            launcher.networks = json!([]);
            launcher.runs().put(&controller);
        }
        controller.lead();
        let eth0 = view.until("it has a port", |view| said(view, ETH0)).await;
        assert_eq!(eth0.ips, ["10.244.0.200/16"]);
        let expected = match phase {
            "Running" => eth0.with("one", "n1").coming("two", "n2", true),
            // What would prove that it was to go there is lost.
            _ => eth0.with("one", "n1"),
        };
        assert_eq!(eth0, expected, "{phase}");
        controller.pod("plain", "plain");
        view.addressed("plain").await;
        assert_eq!(said(&view, ETH0), Some(expected), "{phase}");
        controller.remove::<Pod>("ns", "one");
        let arrived = eth0.with("two", "n2");
        let gone = |view: &View| (said(view, ETH0)? == arrived).then_some(());
        view.until("the next pod has it", gone).await;
        controller.stop().await;
    }
}

/// A machine that migrates to its pod `two`; the first pod's ports, which name both.
async fn leaving(view: &View, controller: &Controller) -> (Said, Said) {
    let (eth0, socket) = started(view, controller).await;
    migration(controller, "m1", "Running");
    launcher("two", "n2", 9).of("m1").put(controller);
    let coming = (
        eth0.coming("two", "n2", true),
        socket.coming("two", "n2", false),
    );
    both(view, "both are named", &coming.0, &coming.1).await;
    coming
}

/// A machine that came by a migration, whose pod `two` has the ports.
async fn moved(view: &View, controller: &Controller) -> (Said, Said) {
    let (eth0, socket) = leaving(view, controller).await;
    migration(controller, "m1", "Succeeded");
    let there = (eth0.with("two", "n2"), socket.with("two", "n2"));
    both(view, "it has arrived", &there.0, &there.1).await;
    controller.remove::<Pod>("ns", "one");
    there
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_migrations_label_gives_nothing_to_another_pod() {
    let server = Server::northbound();
    let (view, mut controller) = (View::of(&server).await, cluster(&server, "a"));
    let (eth0, socket) = moved(&view, &controller).await;
    launcher("forged", "n3", 20).of("m1").put(&controller);
    for _ in 0..2 {
        let notice = controller.notice().await;
        let (about, reason) = (notice.about.to_string(), notice.problem.reason);
        assert_eq!((about.as_str(), reason), ("pod/ns/forged", "PortHeld"));
    }
    both(&view, "nothing has changed", &eth0, &socket).await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_has_goes_with_it_also_if_it_could_not_have_it_now() {
    let server = Server::northbound();
    let (view, controller) = (View::of(&server).await, cluster(&server, "a"));
    let (eth0, socket) = leaving(&view, &controller).await;
    // Its namespace gets a subnet of its own, and its network goes.
    controller.subnet(
        "own",
        &json!({"cidrs": ["10.9.0.0/24"], "namespaces": ["ns"], "primary": true}),
    );
    controller.remove::<api::NetworkAttachmentDefinition>("ns", "fast");
    launcher("fresh", "n3", 20).put_as(&controller, "other");
    let fresh = |view: &View| said(view, "ns/other/own");
    view.until("others are there", fresh).await;
    both(&view, "as it was", &eth0, &socket).await;
    migration(&controller, "m1", "Succeeded");
    let there = (eth0.with("two", "n2"), socket.with("two", "n2"));
    both(&view, "it has arrived", &there.0, &there.1).await;
    controller.remove::<Pod>("ns", "one");
    controller.pod("plain", "plain");
    let plain = |view: &View| view.ports().remove("ns/plain/own");
    view.until("something else", plain).await;
    both(&view, "and stays", &there.0, &there.1).await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_goes_first_leaves_its_ports_to_the_pod_that_they_name() {
    let server = Server::northbound();
    let (view, mut controller) = (View::of(&server).await, cluster(&server, "a"));
    let (eth0, socket) = started(&view, &controller).await;
    // An earlier try's pod lingers, and a stray one.
    migration(&controller, "m0", "Failed");
    launcher("failed", "n3", 5).of("m0").put(&controller);
    launcher("stray", "n3", 6).put(&controller);
    for _ in 0..2 {
        let notice = controller.notice().await;
        assert_eq!(notice.about.to_string(), "pod/ns/stray");
    }
    migration(&controller, "m1", "Running");
    launcher("two", "n2", 9).of("m1").put(&controller);
    let coming = (
        eth0.coming("two", "n2", true),
        socket.coming("two", "n2", false),
    );
    both(&view, "both are named", &coming.0, &coming.1).await;
    // KubeVirt has forgotten it: one of the two will go.
    controller.remove::<VirtualMachineInstanceMigration>("ns", "migration-m1");
    controller.pod("plain", "plain");
    view.addressed("plain").await;
    both(&view, "as it was", &coming.0, &coming.1).await;
    controller.remove::<Pod>("ns", "one");
    let there = (eth0.with("two", "n2"), socket.with("two", "n2"));
    both(&view, "the one that they name", &there.0, &there.1).await;
    controller.stop().await;
}
