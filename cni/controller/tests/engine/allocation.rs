//! Pods get ports, keep them, give them back.

use crate::server::Server;
use crate::world::{Controller, View};
use k8s_openapi::api::core::v1::{Node, Pod};
use ovsdb::{MonitorSpec, Transaction, Values};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_a_port_with_everything_the_node_needs() {
    let server = Server::northbound();
    let (view, controller) = (View::of(&server).await, Controller::start(&server, "a"));
    controller.pod("web", "uid-1");
    assert_eq!(view.addressed("web").await, "10.244.0.2");
    let facts = &view.ports()["ns/web/default"];
    let pod = facts.pod().unwrap();
    assert_eq!(
        (&*pod.uid, &*pod.ifname, &*pod.name),
        ("uid-1", "eth0", "web")
    );
    assert!(facts.chassis.contains("n1") && facts.default_route);
    assert_eq!(facts.gateways[0].to_string(), "10.244.0.1");
    assert_eq!(
        view.members("default"),
        ["default/router", "ns/web/default"]
    );
    assert!(view.members("join").contains(&"node/n1".to_owned()));

    controller.remove::<Pod>("ns", "web");
    view.until("the port is gone", |view| {
        view.ports().is_empty().then_some(())
    })
    .await;
    assert_eq!(view.members("default"), ["default/router"]);
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_pod_gets_a_new_address_and_a_completed_one_gives_it_back() {
    let server = Server::northbound();
    let (view, controller) = (View::of(&server).await, Controller::start(&server, "a"));
    controller.pod("db-0", "uid-1");
    let first = view.addressed("db-0").await;
    controller.pod("db-0", "uid-2");
    let has_uid = |view: &View, uid: &str| {
        view.ports()
            .get("ns/db-0/default")
            .is_some_and(|facts| facts.pod().unwrap().uid == uid)
    };
    view.until("the new pod has the port", |view| {
        has_uid(view, "uid-2").then_some(())
    })
    .await;
    assert_ne!(view.address("db-0").unwrap(), first);
    assert_eq!(view.ports().len(), 1);
    controller.pod_with("db-0", "uid-2", &json!({}), &json!({"phase": "Succeeded"}));
    view.until("the port is gone", |view| {
        view.ports().is_empty().then_some(())
    })
    .await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_subnet_is_said_and_an_address_that_comes_free_is_given() {
    let server = Server::northbound();
    let (view, mut controller) = (View::of(&server).await, Controller::start(&server, "a"));
    let small = json!({"cidrs": ["10.9.0.0/30"], "namespaces": ["ns"], "primary": true});
    controller.subnet("small", &small);
    controller.pod("one", "uid-1");
    let has = |name: &'static str| {
        move |view: &View| {
            view.ports()
                .contains_key(&format!("ns/{name}/small"))
                .then_some(())
        }
    };
    view.until("one has a port", has("one")).await;
    controller.pod("two", "uid-2");
    let notice = controller.notice().await;
    assert_eq!(notice.about.to_string(), "pod/ns/two");
    assert_eq!(
        (notice.problem.reason, &*notice.uid),
        ("NoAddressLeft", "uid-2")
    );
    assert!(
        notice.problem.sentence.contains("Subnet small"),
        "{}",
        notice.problem.sentence
    );
    controller.remove::<Pod>("ns", "one");
    view.until("two has a port", has("two")).await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_pods_get_different_addresses() {
    let server = Server::northbound();
    let (view, controller) = (View::of(&server).await, Controller::start(&server, "a"));
    for n in 0..1000 {
        controller.pod(&format!("p{n}"), &format!("uid-{n}"));
    }
    view.until("all have ports", |view| {
        (view.ports().len() == 1000).then_some(())
    })
    .await;
    let addresses: std::collections::BTreeSet<String> = view
        .ports()
        .values()
        .map(|facts| facts.ips[0].to_string())
        .collect();
    assert_eq!(addresses.len(), 1000);
    for n in 0..1000 {
        controller.remove::<Pod>("ns", &format!("p{n}"));
    }
    view.until("all are gone", |view| view.ports().is_empty().then_some(()))
        .await;
    assert_eq!(view.members("default"), ["default/router"]);
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_unit_that_the_database_refuses_does_not_stop_the_others() {
    let server = Server::northbound();
    let view = View::of(&server).await;
    // Somebody else's port has the name that one of ours needs.
    let client = server.client("OVN_Northbound");
    let mut foreign = Transaction::new();
    let port = foreign.insert(
        "Logical_Switch_Port",
        Values::new().set("name", "ns/p7/default"),
    );
    foreign.insert(
        "Logical_Switch",
        Values::new().set("name", "foreign").set("ports", &port),
    );
    client
        .transact(foreign, Instant::now() + Duration::from_secs(5))
        .await
        .unwrap();

    let mut controller = Controller::start(&server, "a");
    for n in 0..20 {
        controller.pod(&format!("p{n}"), &format!("uid-{n}"));
    }
    view.until("all others have ports", |view| {
        (view.ports().len() == 19).then_some(())
    })
    .await;
    let notice = controller.notice().await;
    assert_eq!(notice.about.to_string(), "pod/ns/p7");
    assert_eq!(notice.problem.reason, "DatabaseRefused");
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secondary_networks_have_ports_of_their_own() {
    let server = Server::northbound();
    let (view, controller) = (View::of(&server).await, Controller::start(&server, "a"));
    controller.subnet(
        "storage",
        &json!({"cidrs": ["10.8.0.0/24"], "namespaces": ["*"]}),
    );
    controller.put::<api::NetworkAttachmentDefinition>(json!({
        "metadata": {"name": "fast", "namespace": "ns"},
        "spec": {"config": r#"{"cniVersion":"1.0.0","type":"outboard","subnet":"storage"}"#},
    }));
    let networks = r#"[{"name":"fast","ips":["10.8.0.77/24"],"mac":"02:00:00:00:00:07"}]"#;
    let annotations = json!({"k8s.v1.cni.cncf.io/networks": networks});
    controller.pod_with("web", "uid-1", &annotations, &json!({}));
    let port = |view: &View| view.ports().remove("ns/web/storage/net1");
    let facts = view.until("net1 is there", port).await;
    assert_eq!(facts.ips[0].to_string(), "10.8.0.77/24");
    assert_eq!(facts.mac.to_string(), "02:00:00:00:00:07");
    assert!(!facts.default_route);
    assert!(view.address("web").is_some());
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_stays_as_long_as_somebody_has_an_address_of_it() {
    let server = Server::northbound();
    let (view, mut controller) = (View::of(&server).await, Controller::start(&server, "a"));
    controller.pod("web", "uid-1");
    let before = view.addressed("web").await;
    controller.remove::<api::Subnet>("", "default");
    let notice = controller.notice().await;
    assert!(notice.problem.reason == "SubnetInUse", "{notice:?}");
    assert_eq!(view.address("web"), Some(before));
    controller.remove::<Pod>("ns", "web");
    view.until("the switch is gone", |view| {
        view.members("default").is_empty().then_some(())
    })
    .await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chassis_of_a_removed_node_goes_too() {
    ovsdb::table! { struct ChassisRow in "Chassis" { name: String } }
    let (nb, sb) = (Server::northbound(), Server::southbound());
    let view = View::of(&nb).await;
    let client = sb.client("OVN_Southbound");
    let mut transaction = Transaction::new();
    for (name, ip) in [("n1", "198.18.0.1"), ("gateway", "198.18.0.2")] {
        let encap = Values::new()
            .set("type", "geneve")
            .set("ip", ip)
            .set("chassis_name", name);
        let encap = transaction.insert("Encap", encap);
        transaction.insert(
            "Chassis",
            Values::new().set("name", name).set("encaps", &encap),
        );
    }
    client
        .transact(transaction, Instant::now() + Duration::from_secs(5))
        .await
        .unwrap();
    let chassis = cni_controller::Chassis::new(client.clone());
    let settings = crate::world::settings();
    let nb_client = nb.client("OVN_Northbound");
    let controller = Controller::with(nb_client, Some(chassis), "a", settings);
    let has_port = |view: &View| !view.members("join").iter().all(|port| port != "node/n1");
    view.until("the node has a port", |view| has_port(view).then_some(()))
        .await;

    controller.remove::<Node>("", "n1");
    view.until("the port is gone", |view| (!has_port(view)).then_some(()))
        .await;
    let replica = sb
        .replica("OVN_Southbound", MonitorSpec::new().table::<ChassisRow>())
        .await;
    let left: Vec<String> = replica.read(|snapshot| {
        snapshot
            .rows::<ChassisRow>()
            .map(|row| row.unwrap().name)
            .collect()
    });
    assert_eq!(left, ["gateway"]);
    controller.stop().await;
}
