//! A northbound database that has lost what it knew.

use crate::server::Server;
use crate::world::{Controller, View, settings};
use cni_controller::index::Settings;
use serde_json::{Value, json};

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
        if notice.unit.to_string() == "pod/ns/new" {
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
    let winner = match notice.unit.to_string().as_str() {
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
    controller.put::<k8s_openapi::api::core::v1::Pod>(json!({
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
