//! A host behind a DPU: its ports are on the DPU's chassis, it has no way out and no chassis of its own.

use crate::server::Server;
use crate::world::{Controller, View, settings};
use api::{Dpu, PortFacts, names};
use k8s_openapi::api::core::v1::{Node, Pod};
use ovsdb::{MonitorSpec, Replica, Transaction, Values};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

ovsdb::table! { struct ChassisRow in "Chassis" { name: String } }

/// A southbound database that has these chassis.
async fn southbound(names: [&str; 3]) -> (Server, Replica) {
    let sb = Server::southbound();
    let mut transaction = Transaction::new();
    for (n, name) in names.into_iter().enumerate() {
        let encap = Values::new()
            .set("type", "geneve")
            .set("ip", format!("198.18.0.{n}"))
            .set("chassis_name", name);
        let encap = transaction.insert("Encap", encap);
        let row = Values::new().set("name", name).set("encaps", &encap);
        transaction.insert("Chassis", row);
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    let client = sb.client("OVN_Southbound");
    client.transact(transaction, deadline).await.unwrap();
    let replica = sb
        .replica("OVN_Southbound", MonitorSpec::new().table::<ChassisRow>())
        .await;
    (sb, replica)
}

fn chassis(replica: &Replica) -> Vec<String> {
    let mut names: Vec<String> = replica.read(|snapshot| {
        let rows = snapshot.rows::<ChassisRow>();
        rows.map(|row| row.unwrap().name).collect()
    });
    names.sort();
    names
}

/// The facts of a node's port, and how many ways out there are by it.
fn node(view: &View, name: &str) -> Option<(PortFacts, usize)> {
    let port = names::node_port(name);
    let text = |atom: &ovsdb::Atom| atom.as_str().unwrap_or_default().to_owned();
    view.0.read(|snapshot| {
        let mut ports = snapshot.raw("Logical_Switch_Port");
        let row =
            ports.find(|row| row.get("name").and_then(|name| name.as_str()) == Some(&port))?;
        let ids = row.get("external_ids")?.pairs();
        let ids: BTreeMap<String, String> = ids.map(|(k, v)| (text(k), text(v))).collect();
        let here = format!("is_chassis_resident(\"{port}\")");
        let ways = snapshot.raw("Logical_Router_Policy").filter(|row| {
            row.get("match")
                .and_then(|m| m.as_str())
                .is_some_and(|m| m.contains(&here))
        });
        Some((PortFacts::decode(&ids).ok()?, ways.count()))
    })
}

fn on(name: &str) -> Option<std::collections::BTreeSet<String>> {
    Some([name.to_owned()].into())
}

/// Its facts are these, and it has so many ways out.
async fn node_is(view: &View, name: &str, chassis: &str, host: Option<&str>, ways: usize) {
    view.until(&format!("{name} on {chassis}"), |view| {
        let (facts, found) = node(view, name)?;
        let is_so = Some(facts.chassis) == on(chassis) && facts.host.as_deref() == host;
        (is_so && found == ways).then_some(())
    })
    .await;
}

async fn pod_is(view: &View, chassis: &str, host: Option<&str>) {
    view.until(&format!("the pod on {chassis}"), |view| {
        let facts = view.ports().remove("ns/web/default")?;
        let is_so = Some(facts.chassis) == on(chassis) && facts.host.as_deref() == host;
        is_so.then_some(())
    })
    .await;
}

fn host(labels: &Value, annotations: &Value) -> Value {
    json!({"metadata": {"name": "h1", "uid": "host", "labels": labels, "annotations": annotations}})
}

pub(crate) fn dpu(name: &str, node: &str) -> Value {
    json!({"apiVersion": "iaas.yusur.io/v1", "kind": "Dpu",
        "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"dpuNode": node, "hostNode": "h1", "address": "198.18.0.12"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hosts_ports_follow_its_dpu_and_it_has_no_chassis_of_its_own() {
    let nb = Server::northbound();
    let view = View::of(&nb).await;
    let (mut sb, chassis_rows) = southbound(["h1", "d1", "n1"]).await;
    let remover = cni_controller::Chassis::new(sb.client("OVN_Southbound"));
    let client = nb.client("OVN_Northbound");
    let mut controller = Controller::with(client, Some(remover), "a", settings());
    for name in ["d1", "d2"] {
        controller.put::<Node>(json!({"metadata": {"name": name, "uid": name}}));
    }
    controller.put::<Node>(host(&json!({}), &json!({})));
    controller.put::<Pod>(json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "web"},
        "spec": {"nodeName": "h1", "containers": []},
    }));
    // A plain node at first.
    node_is(&view, "h1", "h1", None, 1).await;
    pod_is(&view, "h1", None).await;
    let address = view.address("web").unwrap();

    // It becomes the host of a DPU: its chassis goes, the DPU's stays.
    let mode = json!({"iaas.yusur.io/mode": "host"});
    controller.put::<Dpu>(dpu("p", "d1"));
    controller.put::<Node>(host(&mode, &json!({})));
    node_is(&view, "h1", "d1", Some("h1"), 0).await;
    node_is(&view, "d1", "d1", None, 1).await;
    pod_is(&view, "d1", Some("h1")).await;
    assert_eq!(view.address("web").unwrap(), address);
    let mut changed = chassis_rows.changed();
    while chassis(&chassis_rows) != ["d1", "n1"] {
        let wait = tokio::time::timeout(Duration::from_secs(10), changed.changed());
        wait.await.expect("the host's own chassis goes").unwrap();
    }

    // The Dpu is deleted, and what is remembered holds; another card; no Dpu and no memory.
    let memory = json!({"iaas.yusur.io/chassis": "d1"});
    controller.put::<Node>(host(&mode, &memory));
    controller.remove::<Dpu>("", "p");
    controller.pod("marker", "m1");
    view.addressed("marker").await;
    node_is(&view, "h1", "d1", Some("h1"), 0).await;
    pod_is(&view, "d1", Some("h1")).await;
    controller.put::<Dpu>(dpu("q", "d2"));
    node_is(&view, "h1", "d2", Some("h1"), 0).await;
    pod_is(&view, "d2", Some("h1")).await;
    controller.put::<Node>(host(&mode, &json!({})));
    controller.remove::<Dpu>("", "q");
    let mut said = Vec::new();
    while said.len() < 2 {
        let notice = controller.notice().await;
        assert_eq!(notice.problem.reason, "NoDpu", "{notice:?}");
        assert!(notice.problem.sentence.contains("spec.hostNode h1"));
        said.push(notice.about.to_string());
    }
    said.sort();
    assert_eq!(said, ["node/h1", "pod/ns/web"]);
    // What has ports keeps them, where they were.
    node_is(&view, "h1", "d2", Some("h1"), 0).await;
    pod_is(&view, "d2", Some("h1")).await;

    // The host is removed, and nobody waits for the southbound database: no chassis is concerned.
    sb.kill();
    controller.remove::<Pod>("ns", "web");
    controller.remove::<Node>("", "h1");
    view.until("the host is gone", |view| {
        node(view, "h1").is_none().then_some(())
    })
    .await;
    assert!(controller.notices.try_recv().is_err(), "no complaint");
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_never_had_a_dpu_gets_no_ports_until_it_has_one() {
    let nb = Server::northbound();
    let view = View::of(&nb).await;
    let mut controller = Controller::start(&nb, "a");
    let mode = json!({"iaas.yusur.io/mode": "host"});
    controller.put::<Node>(host(&mode, &json!({})));
    controller.put::<Pod>(json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "web"},
        "spec": {"nodeName": "h1", "containers": []},
    }));
    let said = [controller.notice().await, controller.notice().await];
    assert!(said.iter().all(|notice| notice.problem.reason == "NoDpu"));
    controller.pod("marker", "m1");
    view.addressed("marker").await;
    assert!(view.ports().len() == 1 && node(&view, "h1").is_none());
    controller.put::<Dpu>(dpu("p", "d1"));
    node_is(&view, "h1", "d1", Some("h1"), 0).await;
    pod_is(&view, "d1", Some("h1")).await;
    controller.stop().await;
}
