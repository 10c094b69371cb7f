//! What is said of pairs, on Dpus, on Nodes and in Events; and where a host's ports are.

use crate::controller::{Controller, USUAL};
use crate::site::{LEADER, Site, Space, client, create, fresh, site, until};
use api::Dpu;
use api::dpu::{HOST_SEEN, PAIRED, READY};
use api::names::NODE_DPU_READY;
use cni_controller::lease::Candidate;
use cni_controller::pairs::{self, Parts};
use cni_controller::{Turn, notices};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A heartbeat that stands still for so long is lost here.
const PATIENCE: Duration = Duration::from_secs(3);

struct World {
    client: Client,
    dpus: Api<Dpu>,
    nodes: Api<Node>,
    controller: Controller,
    _tasks: JoinSet<()>,
}

/// The loop, as the leader.
fn speaker(controller: &Controller, url: &str, turn: watch::Receiver<Turn>) -> JoinSet<()> {
    let candidate = Candidate {
        lease: "none".into(),
        identity: "test".into(),
        predecessors: None,
        duration: Duration::from_secs(3600),
    };
    let parts = Parts {
        client: client(url, "controller"),
        shared: controller.shared.clone(),
        reports: controller.reports.clone(),
        metrics: controller.metrics.clone(),
        candidate,
        patience: PATIENCE,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(pairs::run(parts, turn, CancellationToken::new()));
    tasks
}

impl World {
    async fn start(site: &Site) -> Self {
        let url = site.server.url();
        let mut controller = Controller::start(&client(&url, "controller"), USUAL).await;
        let mut tasks = speaker(&controller, &url, controller.turn.subscribe());
        tasks.spawn(notices::run(
            client(&url, "controller"),
            "pairs".into(),
            controller.notices.take().unwrap(),
            CancellationToken::new(),
        ));
        let client = site.admin();
        Self {
            dpus: Api::all(client.clone()),
            nodes: Api::all(client.clone()),
            client,
            controller,
            _tasks: tasks,
        }
    }

    async fn node(&self, mode: Option<&str>) -> String {
        let name = fresh("pairs");
        let labels = json!({"iaas.yusur.io/mode": mode});
        let labels = if mode.is_some() { labels } else { json!({}) };
        create(
            &self.nodes,
            json!({"metadata": {"name": name, "labels": labels}}),
        )
        .await;
        name
    }

    async fn dpu(&self, name: &str, dpu: &str, host: &str) {
        let spec = json!({"dpuNode": dpu, "hostNode": host, "address": "198.18.0.12"});
        create(
            &self.dpus,
            json!({"metadata": {"name": name}, "spec": spec}),
        )
        .await;
    }

    /// As the DPU's cni-node says it.
    async fn beats(&self, name: &str, seen: &str, total: u32) {
        let condition = json!({"type": HOST_SEEN, "status": seen, "reason": "Test",
            "message": "no session since the test began", "lastTransitionTime": Timestamp::now()});
        let status = json!({"apiVersion": "iaas.yusur.io/v1", "kind": "Dpu", "metadata": {"name": name},
            "status": {"conditions": [condition], "lastHeartbeat": Timestamp::now(),
                "functions": {"total": total, "free": total}}});
        let params = PatchParams::apply("cni-node-dpu").force();
        let patch = Patch::Apply(&status);
        self.dpus.patch_status(name, &params, &patch).await.unwrap();
    }

    async fn says(&self, name: &str, type_: &str, status: &str, reason: &str) -> Dpu {
        let what = format!("{type_} {status} {reason}");
        let is_so = |dpu: &Dpu| {
            condition(dpu, type_).is_some_and(|c| (&*c.status, &*c.reason) == (status, reason))
        };
        until(&self.dpus, name, &what, is_so).await
    }

    async fn node_says(
        &self,
        name: &str,
        expected: Option<(&str, &str)>,
        chassis: Option<&str>,
    ) -> Node {
        let is_so = |node: &Node| {
            let status = node.status.as_ref();
            let conditions = status
                .and_then(|s| s.conditions.as_deref())
                .unwrap_or_default();
            let ours = conditions.iter().find(|c| c.type_ == NODE_DPU_READY);
            let said = ours.map(|c| (&*c.status, c.reason.as_deref().unwrap_or_default()));
            let notes = node.metadata.annotations.as_ref();
            let note = notes.and_then(|notes| notes.get("iaas.yusur.io/chassis"));
            said == expected && note.map(String::as_str) == chassis
        };
        until(
            &self.nodes,
            name,
            &format!("{expected:?} {chassis:?}"),
            is_so,
        )
        .await
    }

    async fn delete(&self, name: &str) {
        let now = DeleteParams::default();
        self.dpus.delete(name, &now).await.unwrap();
    }

    /// What is written down for the API server of a DPU's node, once it is so.
    async fn is_written_down(&self, node: &str, dpu: Option<&str>) {
        let entry = match dpu {
            Some(name) => {
                let uid = self.dpus.get(name).await.unwrap().metadata.uid.unwrap();
                Some(format!("{name}/{uid}"))
            }
            None => None,
        };
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), crate::site::SYSTEM);
        until(
            &maps,
            "outboard-dpus",
            &format!("{node}: {entry:?}"),
            |map| map.data.as_ref().and_then(|data| data.get(node)) == entry.as_ref(),
        )
        .await;
    }

    async fn events(&self, name: &str, count: usize) -> Vec<(String, String)> {
        let all: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let of = ListParams::default().fields(&format!("regarding.name={name}"));
        let end = Instant::now() + crate::site::DEADLINE;
        loop {
            let events = all.list(&of).await.unwrap().items;
            if events.len() >= count || Instant::now() > end {
                let said = |event: Event| (event.reason.unwrap(), event.note.unwrap());
                let mut said: Vec<_> = events.into_iter().map(said).collect();
                said.sort();
                return said;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Chassis and host of the pod's port, once it is so.
    async fn port_is(&self, name: &str, chassis: &str, host: Option<&str>) {
        let what = format!("{name} on {chassis} for {host:?}");
        let is_so = |view: &crate::world::View| {
            let ports = view.ports();
            let facts = ports.get(name)?;
            let there = facts.chassis.iter().map(String::as_str).collect::<Vec<_>>() == [chassis];
            (there && facts.host.as_deref() == host).then_some(())
        };
        self.controller.view.until(&what, is_so).await;
    }
}

fn condition<'a>(dpu: &'a Dpu, type_: &str) -> Option<&'a Condition> {
    let conditions = &dpu.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_says_how_it_is_and_a_hosts_ports_are_on_its_dpu() {
    let _leader = LEADER.lock().await;
    let site = site();
    let world = World::start(&site).await;
    let [d1, h1] = [
        world.node(Some("dpu")).await,
        world.node(Some("host")).await,
    ];
    a_host_waits_for_its_dpu(&world, &site, &d1, &h1).await;
    two_claim_one_node(&world, &d1, &h1).await;
}

async fn a_host_waits_for_its_dpu(world: &World, site: &Site, d1: &str, h1: &str) {
    // A host without one: its pods have no ports, and are told why.
    world.node_says(h1, Some(("False", "NoDpu")), None).await;
    let space = Space::create(site.admin()).await;
    let bound = |name: &str, node: &str| json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "a", "image": "b"}]}});
    for (name, node) in [("pod", h1), ("of-dpu", d1)] {
        create::<k8s_openapi::api::core::v1::Pod>(&space.all(), bound(name, node)).await;
    }
    let (port, other) = (
        format!("{}/pod/default", space.name),
        format!("{}/of-dpu/default", space.name),
    );
    world.port_is(&other, d1, None).await;
    assert!(!world.controller.view.ports().contains_key(&port));
    let said = world.events(h1, 1).await;
    assert!(
        said[0].0 == "NoDpu" && said[0].1.contains("no Dpu pairs this host"),
        "{said:?}"
    );

    // It gets one, which has not spoken yet.
    let pair = fresh("pair");
    world.dpu(&pair, d1, h1).await;
    world.says(&pair, PAIRED, "True", "Paired").await;
    world.is_written_down(d1, Some(&pair)).await;
    world.says(&pair, READY, "Unknown", "NotReported").await;
    world
        .node_says(h1, Some(("Unknown", "NotReported")), Some(d1))
        .await;
    world.port_is(&port, d1, Some(h1)).await;
    world.port_is(&other, d1, None).await;

    // It speaks: there is no host, no function, and then all is well.
    world.beats(&pair, "False", 8).await;
    let dpu = world.says(&pair, READY, "False", "HostNotSeen").await;
    let sentence = &condition(&dpu, READY).unwrap().message;
    assert!(
        sentence.contains("no session since the test began"),
        "{sentence}"
    );
    assert!(
        condition(&dpu, HOST_SEEN).is_some(),
        "the DPU's own is still there"
    );
    world.beats(&pair, "True", 0).await;
    world.says(&pair, READY, "False", "NoFunctions").await;
    world.beats(&pair, "True", 8).await;
    let dpu = world.says(&pair, READY, "True", "Serving").await;
    let since = condition(&dpu, READY).unwrap().last_transition_time.clone();
    let node = world
        .node_says(h1, Some(("True", "Serving")), Some(d1))
        .await;
    let ours = |node: &Node| {
        let conditions = node.status.clone().unwrap().conditions.unwrap();
        conditions.into_iter().find(|c| c.type_ == NODE_DPU_READY)
    };
    let node_since = ours(&node).unwrap().last_transition_time.unwrap();
    // As long as it beats nothing is written; it stops, and that is noticed.
    let versions = |dpu: &Dpu| condition(dpu, READY).cloned();
    for _ in 0..3 {
        tokio::time::sleep(PATIENCE / 2).await;
        world.beats(&pair, "True", 8).await;
        let now = world.dpus.get(&pair).await.unwrap();
        assert_eq!(versions(&now), versions(&dpu));
    }
    let silent = Instant::now();
    let dpu = world.says(&pair, READY, "False", "HeartbeatLost").await;
    assert!(silent.elapsed() >= PATIENCE - Duration::from_secs(1));
    assert!(condition(&dpu, READY).unwrap().last_transition_time > since);
    let node = world
        .node_says(h1, Some(("False", "HeartbeatLost")), Some(d1))
        .await;
    assert!(ours(&node).unwrap().last_transition_time.unwrap() >= node_since);
    world.port_is(&port, d1, Some(h1)).await;
    world.beats(&pair, "True", 8).await;
    world.says(&pair, READY, "True", "Serving").await;
    // At once: its heart will be lost again.
    let serving = cni_controller::metrics::DpuState { reason: "Serving" };
    assert_eq!(
        world.controller.metrics.dpus.get_or_create(&serving).get(),
        1
    );
    let reasons: Vec<String> = world
        .events(&pair, 3)
        .await
        .into_iter()
        .map(|(reason, _)| reason)
        .collect();
    assert_eq!(reasons, ["HeartbeatLost", "HostNotSeen", "NoFunctions"]);

    // It is deleted, and no port moves; made again, and all is as it was.
    world.delete(&pair).await;
    world
        .node_says(h1, Some(("False", "NoDpu")), Some(d1))
        .await;
    world.port_is(&port, d1, Some(h1)).await;
    let later = fresh("pod");
    create::<k8s_openapi::api::core::v1::Pod>(&space.all(), bound(&later, h1)).await;
    world
        .port_is(&format!("{}/{later}/default", space.name), d1, Some(h1))
        .await;
    world.dpu(&pair, d1, h1).await;
    world.beats(&pair, "True", 8).await;
    world
        .node_says(h1, Some(("True", "Serving")), Some(d1))
        .await;

    // It serves another host now. The one that it leaves keeps its ports for as long as it is a host.
    let h2 = world.node(Some("host")).await;
    let patch = Patch::Merge(json!({"spec": {"hostNode": h2}}));
    world
        .dpus
        .patch(&pair, &PatchParams::default(), &patch)
        .await
        .unwrap();
    world
        .node_says(&h2, Some(("True", "Serving")), Some(d1))
        .await;
    world
        .node_says(h1, Some(("False", "NoDpu")), Some(d1))
        .await;
    let plain = Patch::Merge(json!({"metadata": {"labels": {"iaas.yusur.io/mode": null}}}));
    world
        .nodes
        .patch(h1, &PatchParams::default(), &plain)
        .await
        .unwrap();
    world.node_says(h1, None, None).await;
    world.port_is(&port, h1, None).await;
    let host = Patch::Merge(json!({"metadata": {"labels": {"iaas.yusur.io/mode": "host"}}}));
    world
        .nodes
        .patch(h1, &PatchParams::default(), &host)
        .await
        .unwrap();
    world.node_says(h1, Some(("False", "NoDpu")), None).await;
    world.delete(&pair).await;
    world.is_written_down(d1, None).await;
}

async fn two_claim_one_node(world: &World, d1: &str, h1: &str) {
    let d2 = world.node(Some("dpu")).await;
    // Equally old ones are told apart by their names.
    let (first, second): (String, String) = (fresh("a-pair"), fresh("b-pair"));
    world.dpu(&first, d1, h1).await;
    world.dpu(&second, &d2, h1).await;
    world.beats(&first, "True", 1).await;
    world.beats(&second, "True", 1).await;
    world.says(&first, READY, "True", "Serving").await;
    let beaten: Value = {
        let dpu = world.says(&second, PAIRED, "False", "Beaten").await;
        json!(condition(&dpu, PAIRED).unwrap().message)
    };
    let sentence = beaten.as_str().unwrap();
    assert!(
        sentence.contains(h1) && sentence.contains(&first),
        "{sentence}"
    );
    world.says(&second, READY, "False", "NotPaired").await;
    world
        .node_says(h1, Some(("True", "Serving")), Some(d1))
        .await;
    let said = world.events(&second, 1).await;
    assert_eq!(said.len(), 1, "{said:?}");

    // Who leads no more says no more; who follows goes on.
    world.controller.turn.send_replace(None);
    world.delete(&first).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let dpu = world.dpus.get(&second).await.unwrap();
    assert_eq!(condition(&dpu, PAIRED).unwrap().reason, "Beaten");
    world.controller.turn.send_replace(Some(Instant::now()));
    world.says(&second, PAIRED, "True", "Paired").await;
    world.is_written_down(&d2, Some(&second)).await;
    world
        .node_says(h1, Some(("True", "Serving")), Some(&d2))
        .await;
    let nowhere = fresh("c-pair");
    world.dpu(&nowhere, "no-such-node", "no-such-host").await;
    world.says(&nowhere, PAIRED, "False", "NoSuchNode").await;
    for name in [&second, &nowhere] {
        world.delete(name).await;
    }
}
