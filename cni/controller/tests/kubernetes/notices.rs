//! Events as people see them.

use crate::controller::{Controller, USUAL};
use crate::site::{DEADLINE, Space, client, create, fresh, site};
use api::Subnet;
use cni_controller::notices;
use cni_controller::report::{Notice, Subject};
use cni_controller::rows::{Problem, Unit};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Notices go in here.
fn publisher(client: Client, instance: &str) -> (mpsc::Sender<Notice>, JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel(1000);
    let run = notices::run(
        client,
        instance.to_owned(),
        receiver,
        CancellationToken::new(),
    );
    (sender, tokio::spawn(run))
}

/// Waits until everything that was sent has been dealt with.
async fn published((sender, task): (mpsc::Sender<Notice>, JoinHandle<()>)) {
    drop(sender);
    tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap();
}

async fn events_of(client: &Client, ns: &str, name: &str) -> Vec<Event> {
    let api: Api<Event> = Api::namespaced(client.clone(), ns);
    let of = ListParams::default().fields(&format!("regarding.name={name}"));
    api.list(&of).await.unwrap().items
}

fn notes(events: &[Event]) -> Vec<&str> {
    let mut notes: Vec<&str> = events.iter().filter_map(|e| e.note.as_deref()).collect();
    notes.sort_unstable();
    notes
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sentence_is_said_once_and_counted() {
    let site = site();
    let space = Space::create(site.admin()).await;
    let pod = space.pod("one").await;
    let uid = pod.metadata.uid.unwrap();
    let notice = |sentence: &str| Notice {
        about: Unit::pod(&space.name, "one").into(),
        uid: uid.clone(),
        problem: Problem::new("NoSuchNetwork", sentence),
    };
    let url = site.server.url();
    let first = publisher(client(&url, "controller"), "first");
    for _ in 0..50 {
        // Two sentences of one reason: both have to be readable.
        for sentence in ["network a: create it", "network b: create it"] {
            first.0.send(notice(sentence)).await.unwrap();
        }
    }
    published(first).await;
    let events = events_of(&space.client, &space.name, "one").await;
    assert_eq!(
        notes(&events),
        ["network a: create it", "network b: create it"]
    );
    for event in &events {
        assert!(
            event.series.is_none(),
            "said again within a minute: only counted"
        );
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(event.reason.as_deref(), Some("NoSuchNetwork"));
        assert_eq!(event.reporting_instance.as_deref(), Some("first"));
        let regarding = event.regarding.as_ref().unwrap();
        assert_eq!(regarding.kind.as_deref(), Some("Pod"));
        assert_eq!(regarding.uid.as_ref(), Some(&uid));
    }

    // The next process finds the same: no new Event, the old one counts.
    let second = publisher(client(&url, "controller"), &"second-".repeat(40));
    second.0.send(notice("network a: create it")).await.unwrap();
    second.0.send(notice("network c: create it")).await.unwrap();
    published(second).await;
    let events = events_of(&space.client, &space.name, "one").await;
    assert_eq!(events.len(), 3);
    let a = events
        .iter()
        .find(|e| e.note.as_deref() == Some("network a: create it"));
    assert_eq!(a.unwrap().series.as_ref().unwrap().count, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_events_of_every_kind_and_length() {
    let site = site();
    let space = Space::create(site.admin()).await;
    let url = site.server.url();
    let long = fresh(&"p".repeat(240));
    let subnet = fresh("subnet");
    let units = [
        (
            Subject::from(Unit::Vpc(subnet.clone())),
            subnet.as_str(),
            "default",
        ),
        (Unit::Subnet(subnet.clone()).into(), &subnet, "default"),
        (Unit::Node(subnet.clone()).into(), &subnet, "default"),
        (Unit::service(&space.name, "s").into(), "s", &space.name),
        (Unit::pod(&space.name, &long).into(), &long, &space.name),
        (Subject::Dpu(subnet.clone()), &subnet, "default"),
    ];
    let publisher = publisher(client(&url, "controller"), "first");
    let sentence = "ü".repeat(2000);
    for (about, ..) in units.clone() {
        let problem = Problem::new("InvalidRequest", sentence.as_str());
        let uid = String::new();
        publisher
            .0
            .send(Notice {
                about,
                uid,
                problem,
            })
            .await
            .unwrap();
    }
    published(publisher).await;
    for (unit, name, ns) in &units {
        let events = events_of(&space.client, ns, name).await;
        let kind = format!("{unit}").split('/').next().unwrap().to_owned();
        let of_kind = |event: &&Event| {
            let regarding = event.regarding.as_ref().and_then(|r| r.kind.as_deref());
            regarding.is_some_and(|regarding| regarding.eq_ignore_ascii_case(&kind))
        };
        assert_eq!(
            events.iter().filter(of_kind).count(),
            1,
            "{unit}: {events:?}"
        );
    }
}

/// What the engine finds wrong reaches the pod's owner, with object, cause and remedy.
#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_a_pod_reads_what_is_wrong() {
    let site = site();
    let space = Space::create(site.admin()).await;
    let roomy = Space::create(site.admin()).await;
    let url = site.server.url();
    let subnets: Api<Subnet> = Api::all(site.admin());
    let small = fresh("small");
    let spec = json!({"cidrs": ["10.251.0.0/30"], "primary": true, "namespaces": [space.name]});
    create(&subnets, json!({"metadata": {"name": small}, "spec": spec})).await;

    let mut controller = Controller::start(&client(&url, "controller"), USUAL).await;
    let notices = controller.notices.take().unwrap();
    let stop = CancellationToken::new();
    let run = notices::run(
        client(&url, "controller"),
        "test".into(),
        notices,
        stop.clone(),
    );
    let publisher = tokio::spawn(run);
    // One address; the router has the other.
    space.pod("first").await;
    controller
        .has_port(&format!("{}/first/{small}", space.name))
        .await;
    space.pod("second").await;
    let key = api::names::ANNOTATION_IPS;
    roomy.pod_with("wrong", &json!({key: "ten"})).await;
    let networks = json!({"k8s.v1.cni.cncf.io/networks": "nowhere, nothing"});
    roomy.pod_with("lost", &networks).await;
    let of_machines = api::names::ANNOTATION_NETWORK_IPS;
    let asks = json!({of_machines: r#"{"net1": ["10.251.0.9"]}"#});
    roomy.pod_with("no-machine", &asks).await;

    let mut said = events_until(&space, 1).await;
    said.extend(events_until(&roomy, 4).await);
    let table: [(&str, &str, &[&str]); 5] = [
        ("second", "NoAddressLeft", &["Subnet small-", "delete pods"]),
        ("wrong", "InvalidRequest", &[key, "ten"]),
        ("lost", "NoSuchNetwork", &["nowhere", "create it"]),
        ("lost", "NoSuchNetwork", &["nothing", "create it"]),
        (
            "no-machine",
            "InvalidRequest",
            &[of_machines, "is for virtual machines"],
        ),
    ];
    for (pod, reason, words) in table {
        let is_it = |event: &&Event| {
            let regarding = event.regarding.as_ref().unwrap().name.as_deref();
            let note = event.note.as_deref().unwrap_or_default();
            regarding == Some(pod)
                && event.reason.as_deref() == Some(reason)
                && words.iter().all(|word| note.contains(word))
        };
        assert_eq!(
            said.iter().filter(is_it).count(),
            1,
            "{pod} {reason}: {said:#?}"
        );
    }

    // The remedy works, and is not followed by anything.
    space.delete("first").await;
    controller
        .has_port(&format!("{}/second/{small}", space.name))
        .await;
    stop.cancel();
    publisher.await.unwrap();
    for (space, count) in [(&space, 1), (&roomy, 4)] {
        let all = space.all::<Event>().list(&ListParams::default()).await;
        assert_eq!(all.unwrap().items.len(), count);
    }
    let now = DeleteParams::default().grace_period(0);
    space
        .all::<Pod>()
        .delete_collection(&now, &ListParams::default())
        .await
        .unwrap();
    subnets
        .delete(&small, &DeleteParams::default())
        .await
        .unwrap();
}

/// The first Events of a namespace.
async fn events_until(space: &Space, count: usize) -> Vec<Event> {
    let api: Api<Event> = space.all();
    let mut stream = api
        .watch(&WatchParams::default(), "0")
        .await
        .unwrap()
        .boxed();
    let mut events = Vec::new();
    let read = async {
        while events.len() < count {
            match stream.try_next().await.unwrap() {
                Some(WatchEvent::Added(event)) => events.push(event),
                Some(_) => {}
                None => break,
            }
        }
    };
    let _ = tokio::time::timeout(DEADLINE, read).await;
    events
}
