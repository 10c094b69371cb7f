//! Whatever happens to a watch, the ports in the northbound database are those of the pods that
//! there are.

use crate::controller::{Controller, USUAL};
use crate::proxy::Proxy;
use crate::site::{DEADLINE, Site, Space, client, create, fresh, site};
use api::{NetworkAttachmentDefinition, Subnet};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
    WatchEvent, WatchParams,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;

/// The pods that are to have ports, by name, with their UIDs.
async fn wanted(space: &Space) -> BTreeSet<(String, String)> {
    let pods = space.all::<Pod>().list(&ListParams::default()).await;
    let live = pods.unwrap().items.into_iter().filter(|pod| {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        !matches!(phase, Some("Succeeded" | "Failed"))
    });
    live.map(|pod| (pod.metadata.name.unwrap(), pod.metadata.uid.unwrap()))
        .collect()
}

async fn converged(controller: &Controller, space: &Space, what: &str) {
    let pods = wanted(space).await;
    controller.converged(what, &space.name, &pods).await;
}

async fn ends(space: &Space, pod: &str) {
    let status = json!({"status": {"phase": "Succeeded"}});
    let pods = space.all::<Pod>();
    pods.patch_status(pod, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
}

/// Everything that can happen to a pod while nobody looks.
async fn changes(space: &Space) {
    for n in 0..8 {
        space.delete(&format!("p{n}")).await;
    }
    ends(space, "p8").await;
    // Recreated under the same name, as a StatefulSet's; one of them is gone again.
    space.pods(0..3).await;
    space.delete("p2").await;
    space.pods(20..24).await;
    space.delete("p20").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_watch_goes_on_where_it_was() {
    let site = site();
    let space = Space::create(site.admin()).await;
    let proxy = Proxy::to(&site.server.url()).await;
    let controller = Controller::start(&client(&proxy.url(), "controller"), USUAL).await;
    space.pods(0..12).await;
    converged(&controller, &space, "all have ports").await;

    proxy.close();
    changes(&space).await;
    proxy.open(&site.server.url());
    converged(&controller, &space, "what happened meanwhile is caught up").await;

    // Connections end in the middle of what they carry.
    for n in 100..140 {
        space.pods([n]).await;
        if n % 2 == 0 {
            space.delete(&format!("p{n}")).await;
        }
        if n % 8 == 0 {
            proxy.cut();
        }
    }
    converged(&controller, &space, "nothing was lost by the cuts").await;
}

/// The API server is another one (restarted, or the next of several): its watch cache begins after
/// what the watch has seen, so it says 410 and there is a new list.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_list_removes_what_is_no_longer_there() {
    let site = site();
    let space = Space::create(site.admin()).await;
    let proxy = Proxy::to(&site.server.url()).await;
    let controller = Controller::start(&client(&proxy.url(), "controller"), USUAL).await;
    space.pods(0..12).await;
    converged(&controller, &space, "all have ports").await;
    let seen = space
        .all::<Pod>()
        .list(&ListParams::default())
        .await
        .unwrap();

    proxy.freeze();
    changes(&space).await;
    let restarted = tokio::task::block_in_place(|| site.server.beside());
    let pods: Api<Pod> = Api::namespaced(client(&restarted.url(), "admin"), &space.name);
    let version = seen.metadata.resource_version.unwrap();
    let mut resumed = pods
        .watch(&WatchParams::default(), &version)
        .await
        .unwrap()
        .boxed();
    let first = resumed.try_next().await.unwrap();
    assert!(
        matches!(&first, Some(WatchEvent::Error(status)) if status.code == 410),
        "a watch that goes on after {version} began with {first:?}"
    );

    proxy.open(&restarted.url());
    proxy.cut();
    converged(&controller, &space, "the list is what counts").await;
    space.delete("p10").await;
    converged(&controller, &space, "and the watch after it").await;
}

/// The machine at the other end is gone, and nobody closes the connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_given_up() {
    let site = site();
    let space = Space::create(site.admin()).await;
    let proxy = Proxy::to(&site.server.url()).await;
    let controller = Controller::start(&client(&proxy.url(), "controller"), 2).await;
    space.pods(0..12).await;
    converged(&controller, &space, "all have ports").await;
    proxy.freeze();
    changes(&space).await;
    converged(&controller, &space, "it was noticed").await;
}

/// The API server itself writes one object in one revision. Whoever writes several into etcd at
/// once (only a bench does) makes events of one resource version.
#[tokio::test(flavor = "multi_thread")]
async fn many_changes_in_one_revision() {
    let site = site();
    let space = Space::create(site.admin()).await;
    let controller = Controller::start(&client(&site.server.url(), "controller"), USUAL).await;
    space.pods(0..100).await;
    converged(&controller, &space, "all have ports").await;
    let pods = space.all::<Pod>();
    let before = pods.list(&ListParams::default()).await.unwrap();
    let before = before.metadata.resource_version.unwrap();

    // An unbroken watch gets all of them, and nothing of it is lost here.
    delete_all_at_once(&site, &space);
    converged(&controller, &space, "no port is left").await;

    // A watch that goes on after the first of them gets none of the others: the protocol has no
    // word for half a revision.
    let marker = space.pod("marker").await;
    let events = events_until(&pods, &before, "marker").await;
    let versions: BTreeSet<&str> = deletions(&events).map(|(_, version)| version).collect();
    assert_eq!((deletions(&events).count(), versions.len()), (100, 1));
    let version = versions.first().unwrap();
    assert!(marker.metadata.resource_version.as_deref() > Some(version));
    let resumed = events_until(&pods, version, "marker").await;
    assert_eq!(deletions(&resumed).count(), 0);
}

fn delete_all_at_once(site: &Site, space: &Space) {
    let deleted = Command::new("etcdctl")
        .arg(format!("--endpoints={}", site.server.etcd_url()))
        .args(["del", "--prefix"])
        .arg(format!("/registry/pods/{}/", space.name))
        .env("ETCDCTL_API", "3")
        .output()
        .expect("etcdctl is missing: run `make setup`");
    let said = String::from_utf8_lossy(&deleted.stdout).trim().to_owned();
    assert_eq!(said, "100", "{deleted:?}");
}

async fn events_until(pods: &Api<Pod>, after: &str, last: &str) -> Vec<WatchEvent<Pod>> {
    let mut events = pods
        .watch(&WatchParams::default(), after)
        .await
        .unwrap()
        .boxed();
    let mut all = Vec::new();
    let read = async {
        while let Some(event) = events.try_next().await.unwrap() {
            let is_last = matches!(&event, WatchEvent::Added(pod) if pod.metadata.name.as_deref() == Some(last));
            all.push(event);
            if is_last {
                break;
            }
        }
    };
    tokio::time::timeout(DEADLINE, read).await.unwrap();
    all
}

fn deletions(events: &[WatchEvent<Pod>]) -> impl Iterator<Item = (&str, &str)> {
    events.iter().filter_map(|event| match event {
        WatchEvent::Deleted(pod) => Some((
            pod.metadata.name.as_deref()?,
            pod.metadata.resource_version.as_deref()?,
        )),
        _ => None,
    })
}

/// A definition without a spec is allowed: a file on the nodes has the configuration.
#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_cannot_be_read_hides_no_other() {
    let site = site();
    let space = Space::create(site.admin()).await;
    let subnets: Api<Subnet> = Api::all(site.admin());
    let spec = json!({"cidrs": ["10.250.0.0/24"], "namespaces": [space.name]});
    let second = fresh("second");
    create(
        &subnets,
        json!({"metadata": {"name": second}, "spec": spec}),
    )
    .await;
    let kind = ApiResource::erase::<NetworkAttachmentDefinition>(&());
    let nads: Api<DynamicObject> = Api::namespaced_with(site.admin(), &space.name, &kind);
    let define = async |name: &str, more: Value| {
        let object = DynamicObject::new(name, &kind).data(more);
        nads.create(&PostParams::default(), &object).await.unwrap();
    };
    let config = format!(r#"{{"type":"outboard","subnet":"{second}"}}"#);
    define("in-a-file", json!({})).await;
    define("ours", json!({"spec": {"config": config}})).await;

    let controller = Controller::start(&client(&site.server.url(), "controller"), USUAL).await;
    let networks = json!({"k8s.v1.cni.cncf.io/networks": "ours"});
    space.pod_with("one", &networks).await;
    controller.has_port(&space.port_in("one", &second)).await;

    // It loses its spec: what it said counts, until it says something else.
    let none = Patch::Merge(json!({"spec": null}));
    nads.patch("ours", &PatchParams::default(), &none)
        .await
        .unwrap();
    define("in-another-file", json!({})).await;
    space.pod_with("two", &networks).await;
    controller.has_port(&space.port_in("two", &second)).await;
    subnets
        .delete(&second, &DeleteParams::default())
        .await
        .unwrap();
}
