//! A northbound database that has lost what it knew.

use crate::server::Server;
use crate::world::{Controller, View, settings};
use api::{NetworkAttachmentDefinition, PLUGGED_FORMAT, PLUGGED_KEY, plugged_key};
use cni_controller::Chassis;
use cni_controller::index::Settings;
use cni_controller::report::SubnetState;
use k8s_openapi::api::core::v1::Pod;
use ovsdb::{Transaction, Values};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

fn running(ip: &str) -> Value {
    json!({"phase": "Running", "podIPs": [{"ip": ip}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn emptied_under_a_running_controller_it_is_written_again_from_memory() {
    let mut server = Server::northbound();
    let view = View::of(&server).await;
    let controller = Controller::start(&server, "a");
    controller.pod("one", "uid-1");
    controller.pod("two", "uid-2");
    let before = (view.addressed("one").await, view.addressed("two").await);
    controller.pod_with("one", "uid-1", &json!({}), &running(&before.0));
    server.empty();
    controller.pod("three", "uid-3");
    view.addressed("three").await;
    assert_eq!(
        (view.addressed("one").await, view.addressed("two").await),
        before
    );
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn emptied_while_nobody_looked_it_gives_out_nothing_until_it_is_rebuilt() {
    let server = Server::northbound();
    let view = View::of(&server).await;
    let client = || server.client("OVN_Northbound");
    let pods = |controller: &Controller| {
        controller.pod_with("one", "uid-1", &json!({}), &running("10.244.0.2"));
        controller.pod_with("two", "uid-2", &json!({}), &running("10.244.0.9"));
        controller.pod("new", "uid-3");
    };
    let mut refusing = Controller::standby(client(), None, "a", settings());
    pods(&refusing);
    refusing.lead();
    let notice = loop {
        let notice = refusing.notice().await;
        if notice.about.to_string() == "pod/ns/new" {
            break notice;
        }
    };
    assert_eq!(notice.problem.reason, "AllocationRefused");
    assert!(
        notice.problem.sentence.contains("--rebuild"),
        "{}",
        notice.problem.sentence
    );
    assert!(
        notice.problem.sentence.contains("2 running pods"),
        "{}",
        notice.problem.sentence
    );
    let complaints = refusing.readiness.complaints();
    assert!(
        complaints.iter().any(|(name, _)| *name == "allocation"),
        "{complaints:?}"
    );
    let state = refusing
        .subnet_state("default", |state| state.ready.is_err())
        .await;
    assert_eq!(state.ready.unwrap_err().reason, "AllocationRefused");
    assert!(view.ports().is_empty());
    refusing.stop().await;

    let keep = Settings {
        keep_reports: true,
        ..settings()
    };
    let mut rebuilding = Controller::standby(client(), None, "b", keep);
    pods(&rebuilding);
    rebuilding.pod_with("twice", "uid-4", &json!({}), &running("10.244.0.9"));
    rebuilding.lead();
    let new = view.addressed("new").await;
    assert_eq!(view.addressed("one").await, "10.244.0.2");
    let notice = rebuilding.notice().await;
    let winner = match notice.about.to_string().as_str() {
        "pod/ns/twice" => "two",
        _ => "twice",
    };
    assert!(
        notice.problem.sentence.contains("10.244.0.9"),
        "{}",
        notice.problem.sentence
    );
    assert_eq!(view.addressed(winner).await, "10.244.0.9");
    assert!(new != "10.244.0.2" && new != "10.244.0.9");
    assert_eq!(view.ports().len(), 3);
    rebuilding.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_running_pod_an_empty_database_is_a_new_one() {
    let server = Server::northbound();
    let view = View::of(&server).await;
    let controller = Controller::standby(server.client("OVN_Northbound"), None, "a", settings());
    // A hostNetwork pod's address is the node's.
    controller.put::<Pod>(json!({
        "metadata": {"name": "proxy", "namespace": "ns", "uid": "uid-h"},
        "spec": {"nodeName": "n1", "hostNetwork": true, "containers": []},
        "status": running("10.244.0.7"),
    }));
    controller.pod("new", "uid-1");
    controller.lead();
    view.addressed("new").await;
    controller.readiness.ready().await;
    controller.stop().await;
}

/// What cni-node of a chassis has written: (UID, entry) of interfaces net1.
async fn publish(sb: &Server, chassis: &str, entries: &[(&str, &str)]) {
    let format = (PLUGGED_KEY.to_owned(), PLUGGED_FORMAT.to_owned());
    let entries = entries
        .iter()
        .map(|(uid, entry)| (plugged_key(uid, "net1"), (*entry).to_owned()));
    let ids: BTreeMap<String, String> = entries.chain([format]).collect();
    let mut transaction = Transaction::new();
    let row = Values::new().set("name", chassis).set("external_ids", &ids);
    transaction.insert("Chassis_Private", row);
    let deadline = Instant::now() + Duration::from_secs(10);
    let client = sb.client("OVN_Southbound");
    client.transact(transaction, deadline).await.unwrap();
}

/// Pods with a second interface in Subnet `storage`, all on n1: (name, address of eth0, network-status).
fn second_interfaces(controller: &Controller, pods: &[(&str, &str, &str)]) {
    let storage = json!({"cidrs": ["10.200.0.0/24"], "namespaces": ["ns"]});
    controller.subnet("storage", &storage);
    let config = r#"{"type":"outboard","subnet":"storage"}"#;
    controller.put::<NetworkAttachmentDefinition>(json!({
        "metadata": {"name": "storage", "namespace": "ns"}, "spec": {"config": config},
    }));
    for (name, ip, status) in pods {
        let annotations = json!({
            "k8s.v1.cni.cncf.io/networks": "storage",
            "k8s.v1.cni.cncf.io/network-status": status,
        });
        controller.pod_with(name, &format!("uid-{name}"), &annotations, &running(ip));
    }
}

/// Addresses of net1, by pod.
fn of_net1(view: &View) -> BTreeMap<String, String> {
    let ports = view.ports().into_values();
    let net1 = ports.filter_map(|facts| {
        let pod = facts.pod().filter(|pod| pod.ifname == "net1")?;
        Some((
            pod.name.clone(),
            format!("{} {}", facts.mac, facts.ips[0].addr()),
        ))
    });
    net1.collect()
}

fn rebuilding() -> Settings {
    Settings {
        keep_reports: true,
        ..settings()
    }
}

/// Until it waits for the southbound database, or no longer does.
async fn until_it_waits(controller: &Controller, waits: bool) {
    let changed = async {
        let says = |(_, why): &(_, String)| why.contains("--rebuild waits for the southbound");
        while controller.readiness.complaints().iter().any(says) != waits {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), changed)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_does_not_know_the_pods_nodes_do() {
    let (nb, mut sb) = (Server::northbound(), Server::southbound());
    let view = View::of(&nb).await;
    let status = r#"[{"interface":"net1","ips":["10.200.0.5"]}]"#;
    let pods = [
        ("fresh", "10.244.0.2", ""),
        ("liar", "10.244.0.3", ""),
        ("outside", "10.244.0.4", ""),
        ("plain", "10.244.0.5", ""),
        ("reported", "10.244.0.6", status),
    ];
    let mac = "02:00:00:00:00:01";
    let port = |pod: &str, ip: &str| format!("ns/{pod}/storage/net1 {mac} {ip}");
    let (plain, liar, outside) = (
        port("plain", "10.200.0.2"),
        port("liar", "10.200.0.5"),
        port("outside", "10.201.0.2"),
    );
    publish(
        &sb,
        "n1",
        &[
            ("uid-plain", &plain),
            ("uid-liar", &liar),
            ("uid-outside", &outside),
        ],
    )
    .await;
    // Another node's word on a pod of n1's.
    let forged = port("fresh", "10.200.0.77");
    publish(&sb, "n2", &[("uid-fresh", &forged)]).await;

    // As long as nobody says --rebuild, nothing is given out of that subnet either.
    let chassis = || Some(Chassis::new(sb.client("OVN_Southbound")));
    let refusing = Controller::standby(nb.client("OVN_Northbound"), chassis(), "a", settings());
    second_interfaces(&refusing, &pods);
    refusing.lead();
    let state = refusing
        .subnet_state("storage", |state| state.ready.is_err())
        .await;
    let why = state.ready.unwrap_err();
    assert_eq!(why.reason, "AllocationRefused");
    assert!(why.sentence.contains("5 running pods"), "{}", why.sentence);
    assert!(view.ports().is_empty());
    refusing.stop().await;

    let chassis = chassis();
    sb.kill();
    let client = nb.client("OVN_Northbound");
    let mut controller = Controller::standby(client, chassis, "b", rebuilding());
    second_interfaces(&controller, &pods);
    controller.lead();
    until_it_waits(&controller, true).await;
    assert!(view.ports().is_empty());
    sb.restart();
    let ports = view
        .until("three interfaces have their ports", |view| {
            Some(of_net1(view)).filter(|ports| ports.len() == 3)
        })
        .await;
    assert_eq!(ports["plain"], format!("{mac} 10.200.0.2"));
    assert!(ports["reported"].ends_with("10.200.0.5"), "{ports:?}");
    // It is plugged nowhere, as far as its own node knows: any address will do.
    assert!(ports["fresh"].ends_with("10.200.0.3"), "{ports:?}");
    let notices = [controller.notice().await, controller.notice().await];
    let mut said = BTreeMap::new();
    for notice in notices {
        said.insert(notice.about.to_string(), notice.problem.sentence);
    }
    for (unit, address) in [
        ("pod/ns/liar", "10.200.0.5"),
        ("pod/ns/outside", "10.201.0.2"),
    ] {
        let sentence = &said[unit];
        let parts = ["--rebuild: node n1 says that net1 has", address];
        assert!(
            parts.iter().all(|part| sentence.contains(part)),
            "{sentence}"
        );
    }
    assert_eq!(view.address("plain").unwrap(), "10.244.0.5");
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_published_nothing_is_waited_for_a_while_and_then_said() {
    let (nb, sb) = (Server::northbound(), Server::southbound());
    let view = View::of(&nb).await;
    let client = nb.client("OVN_Northbound");
    let chassis = Some(Chassis::new(sb.client("OVN_Southbound")));
    let mut controller = Controller::standby(client, chassis, "a", rebuilding());
    second_interfaces(&controller, &[("plain", "10.244.0.5", "")]);
    controller.lead();
    let notices = [controller.notice().await, controller.notice().await];
    let said: BTreeSet<String> = notices
        .iter()
        .map(|notice| format!("{} {}", notice.about, notice.problem.reason))
        .collect();
    let expected = [
        "node/n1 InterfacesNotPublished",
        "pod/ns/plain AddressNotKnown",
    ];
    assert_eq!(said, expected.map(str::to_owned).into());
    let ports = view
        .until("the interface has a port", |view| {
            Some(of_net1(view)).filter(|ports| !ports.is_empty())
        })
        .await;
    assert!(ports["plain"].ends_with("10.200.0.2"), "{ports:?}");
    controller.readiness.ready().await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_while_the_nodes_are_waited_for_is_not_lost() {
    let (nb, mut sb) = (Server::northbound(), Server::southbound());
    let view = View::of(&nb).await;
    let published = "02:00:00:00:00:01 10.200.0.9";
    let entry = format!("ns/plain/storage/net1 {published}");
    publish(&sb, "n1", &[("uid-plain", &entry)]).await;
    let chassis = Some(Chassis::new(sb.client("OVN_Southbound")));
    sb.kill();
    let client = nb.client("OVN_Northbound");
    let controller = Controller::standby(client, chassis, "a", rebuilding());
    second_interfaces(&controller, &[("plain", "10.244.0.5", "")]);
    controller.lead();
    until_it_waits(&controller, true).await;
    // The Lease is lost, and nobody else takes it.
    controller.turn.send_replace(None);
    until_it_waits(&controller, false).await;
    controller.lead();
    until_it_waits(&controller, true).await;
    controller.subnet("late", &json!({"cidrs": ["10.201.0.0/24"]}));
    sb.restart();
    let ports = view
        .until("the interface has a port", |view| {
            Some(of_net1(view)).filter(|ports| !ports.is_empty())
        })
        .await;
    assert_eq!(ports["plain"], published);
    let late = |state: &SubnetState| state.ready.is_ok() && state.v4.is_some();
    controller.subnet_state("late", late).await;
    controller.stop().await;
}
