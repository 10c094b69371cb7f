//! Ports of virtual machines: what a VM asks for in its secondary networks, and its pods one after the other (`migrations.rs`: two at a time).

use crate::server::Server;
use crate::world::{Controller, View};
use api::PortFacts;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

const KEY: &str = api::names::ANNOTATION_NETWORK_IPS;

/// A controller with two networks: `fast` is ours, `slow` is another plugin's.
fn networks(server: &Server) -> Controller {
    let controller = Controller::start(server, "a");
    let cidrs = ["10.8.0.0/24", "fd00:8::/64"];
    controller.subnet("storage", &json!({"cidrs": cidrs, "namespaces": ["*"]}));
    for (name, config) in [
        ("fast", r#"{"type": "outboard", "subnet": "storage"}"#),
        ("slow", r#"{"type": "bridge"}"#),
    ] {
        controller.put::<api::NetworkAttachmentDefinition>(json!({
            "metadata": {"name": name, "namespace": "ns"}, "spec": {"config": config},
        }));
    }
    controller
}

/// A launcher's pod of the VM `db`, whose networks are `blue` (fast) and `red` (slow), with the VM's annotations.
fn launcher(controller: &Controller, name: &str, uid: &str, annotations: &Value) {
    let (blue, red) = (api::machine_ifname("blue"), api::machine_ifname("red"));
    let networks = json!([
        {"name": "fast", "namespace": "ns", "interface": blue, "mac": "02:00:00:00:00:07"},
        {"name": "slow", "namespace": "ns", "interface": red},
    ]);
    let mut annotations = annotations.clone();
    annotations["k8s.v1.cni.cncf.io/networks"] = networks.to_string().into();
    controller.put::<Pod>(json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": uid, "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "db", "uid": "vm", "controller": true,
            }],
        },
        "spec": {"nodeName": "n1", "containers": []},
    }));
}

fn blue(view: &View) -> Option<PortFacts> {
    let name = format!("ns/db/storage/{}", api::machine_ifname("blue"));
    view.ports().remove(&name)
}

fn of_pod(name: &'static str) -> impl Fn(&View) -> Option<PortFacts> {
    move |view| blue(view).filter(|facts| facts.pod().unwrap().name == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_keeps_the_address_that_it_asks_for_and_is_on_one_node_at_a_time() {
    let server = Server::northbound();
    let (view, mut controller) = (View::of(&server).await, networks(&server));
    let asked = json!({KEY: r#"{"blue": ["10.8.0.77/24", "fd00:8::77"]}"#});
    launcher(&controller, "source", "uid-1", &asked);
    let facts = view.until("it has a port", of_pod("source")).await;
    let ips: Vec<String> = facts.ips.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["10.8.0.77/24", "fd00:8::77/64"]);
    assert_eq!(facts.mac.to_string(), "02:00:00:00:00:07");

    // Another pod of it: the target of a live migration, or that of a start while the former one still goes.
    launcher(&controller, "target", "uid-2", &asked);
    for _ in 0..2 {
        let notice = controller.notice().await;
        assert_eq!(notice.about.to_string(), "pod/ns/target");
        let (reason, sentence) = (notice.problem.reason, &notice.problem.sentence);
        assert_eq!(reason, "PortHeld");
        assert!(
            sentence.contains("belongs to pod ns/source")
                && sentence.contains("no VirtualMachineInstanceMigration under way"),
            "{sentence}"
        );
    }
    assert_eq!(of_pod("source")(&view), Some(facts.clone()));
    controller.remove::<Pod>("ns", "source");
    let next = view.until("the next pod has it", of_pod("target")).await;
    assert_eq!((next.ips, next.mac), (facts.ips, facts.mac));
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_said_and_the_machines_pod_has_its_own_address() {
    let server = Server::northbound();
    let (view, mut controller) = (View::of(&server).await, networks(&server));
    for (text, reason, says) in [
        ("10.8.0.77", "InvalidRequest", "no JSON object of lists"),
        (
            r#"{"blue": "10.8.0.77"}"#,
            "InvalidRequest",
            "write {\"net1\": [\"10.1.2.3\"]}",
        ),
        (
            r#"{"green": ["10.8.0.77"]}"#,
            "InvalidRequest",
            "\"green\" is no network with multus",
        ),
        (
            r#"{"blue": ["ten"]}"#,
            "InvalidRequest",
            "\"ten\" in ips is not an IP address",
        ),
        (
            r#"{"blue": ["10.8.0.77", "10.8.0.78"]}"#,
            "InvalidRequest",
            "two addresses of one family",
        ),
        (
            r#"{"blue": ["10.9.0.77"]}"#,
            "AddressRefused",
            "not in its CIDRs",
        ),
        (r#"{"blue": ["10.8.0.1"]}"#, "AddressRefused", "a gateway"),
        (
            r#"{"red": ["10.9.0.77"]}"#,
            "InvalidRequest",
            "another plugin's",
        ),
    ] {
        launcher(&controller, "db-1", text, &json!({KEY: text}));
        let notice = controller.notice().await;
        assert_eq!(
            (
                &*notice.about.to_string(),
                &*notice.uid,
                notice.problem.reason
            ),
            ("pod/ns/db-1", text, reason),
            "{:?}",
            notice.problem
        );
        let sentence = &notice.problem.sentence;
        assert!(sentence.contains(says), "{sentence}");
        view.until("its eth0 has an address", |view| view.address("db"))
            .await;
        if !text.contains("red") {
            assert_eq!(blue(&view), None, "{text}");
        }
        controller.remove::<Pod>("ns", "db-1");
        view.until("nothing is left", |view| {
            view.ports().is_empty().then_some(())
        })
        .await;
    }
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_one_machines_and_a_plain_pod_is_told_its_own_way_to_ask() {
    let server = Server::northbound();
    let (view, mut controller) = (View::of(&server).await, networks(&server));
    let asked = json!({KEY: r#"{"blue": ["10.8.0.77"]}"#});
    let annotations =
        json!({"k8s.v1.cni.cncf.io/networks": r#"[{"name": "fast", "ips": ["10.8.0.77"]}]"#});
    controller.pod_with("web", "uid-1", &annotations, &json!({}));
    let web = |view: &View| view.ports().remove("ns/web/storage/net1");
    view.until("a pod has the address", web).await;
    launcher(&controller, "db-1", "uid-2", &asked);
    let notice = controller.notice().await;
    assert_eq!(notice.problem.reason, "AddressRefused");
    let sentence = &notice.problem.sentence;
    assert!(
        sentence.contains("10.8.0.77 was asked for and belongs to another port"),
        "{sentence}"
    );

    controller.pod_with("plain", "uid-3", &asked, &json!({}));
    let notice = controller.notice().await;
    assert_eq!(notice.about.to_string(), "pod/ns/plain");
    let sentence = &notice.problem.sentence;
    assert!(
        sentence.contains("is for virtual machines: write \"ips\""),
        "{sentence}"
    );
    controller.stop().await;
}
