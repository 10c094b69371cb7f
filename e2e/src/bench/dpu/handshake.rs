//! What a host and its DPU pay that speak by annotations of the pod: three PATCHes by three programs, which see each other's by
//! their watches, and two loops that look every 200 ms. So does ovn-kubernetes in its DPU mode.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::Bench;
use super::super::cluster::{Cluster, NAMESPACE};
use super::super::etcd;
use super::super::ports::LIMIT;
use super::super::report::{Report, Row};
use super::super::samples::Samples;

/// Written by the controller, by the host and by the DPU.
const NETWORKS: &str = "bench/pod-networks";
const DETAILS: &str = "bench/dpu.connection-details";
const STATUS: &str = "bench/dpu.connection-status";
/// The step of both loops.
const STEP: Duration = Duration::from_millis(200);
/// From the port in Open vSwitch to its flows: what a quick machine needs, and less than any step.
const INSTALLED: Duration = Duration::from_millis(8);
const NODE: &str = "h1";

/// One program: its own connection, and the pods as it has heard of them.
struct Actor {
    pods: Api<Pod>,
    heard: Heard,
    watch: JoinHandle<()>,
}

type Annotations = BTreeMap<String, String>;

#[derive(Clone, Default)]
struct Heard {
    pods: Arc<Mutex<BTreeMap<String, Annotations>>>,
    news: Arc<tokio::sync::Notify>,
}

/// The times of one handshake.
struct Lap {
    whole: Duration,
    patches: [Duration; 3],
}

/// `channel` is what our own channel adds to an ADD, in ms.
pub(super) fn measure(bench: &Bench, channel: f64, report: &mut Report) -> Result<()> {
    Bench::say("the handshake by annotations");
    let mut cluster = Cluster::up(bench)?;
    let count = u32::from(bench.options.samples);
    let name = |number: u32| format!("p{number}");
    let pods = (1..=count).map(|number| etcd::pod(&name(number), number, NODE));
    cluster
        .etcd
        .put(std::iter::once(etcd::node(NODE, 0)).chain(pods))?;
    let (mut whole, mut each, mut three) =
        (Samples::default(), Samples::default(), Samples::default());
    bench.runtime.block_on(async {
        let actor = || Actor::connect(cluster.kubeconfig());
        let (controller, host, dpu) = (actor().await?, actor().await?, actor().await?);
        for number in 1..=count {
            let pod = name(number);
            for actor in [&controller, &host, &dpu] {
                actor.until(&pod, |_| true).await?;
            }
            let lap = handshake(&controller, &host, &dpu, &pod).await?;
            whole.push(lap.whole);
            lap.patches.iter().for_each(|time| each.push(*time));
            three.push(lap.patches.iter().sum());
        }
        anyhow::Ok(())
    })?;
    report.push(
        Row::new("handshake by annotations, p50", whole.p50(), "ms")
            .beside("our channel (host − plain)", channel)
            .of(&whole),
    );
    report.push(Row::new("handshake by annotations, p99", whole.p99(), "ms"));
    report.push(Row::new("its three PATCHes alone, p50", three.p50(), "ms").of(&three));
    report.push(Row::new("one PATCH, p50", each.p50(), "ms").of(&each));
    report.note("handshake: controller, host and DPU each PATCH the pod; host and DPU look every 200 ms; no Open vSwitch in it but a wait of 8 ms");
    Ok(())
}

/// From the moment at which the pod's addresses can be written to the moment at which the host may set up the function.
async fn handshake(controller: &Actor, host: &Actor, dpu: &Actor, pod: &str) -> Result<Lap> {
    let begun = Instant::now();
    let networks = controller.write(pod, NETWORKS, r#"{"default":{"ip_addresses":["10.244.0.5/16"],"mac_address":"0a:58:0a:f4:00:05","gateway_ips":["10.244.0.1"]}}"#);
    let details = async {
        let details = r#"{"default":{"pfId":"0","vfId":"3","sandboxId":"0123456789abcdef","vfNetdevName":"vf3"}}"#;
        let patched = host.write(pod, DETAILS, details).await?;
        host.look_until(pod, |seen| {
            seen.contains_key(NETWORKS) && seen.contains_key(STATUS)
        })
        .await?;
        anyhow::Ok((patched, begun.elapsed()))
    };
    let status = async {
        dpu.until(pod, |seen| {
            seen.contains_key(NETWORKS) && seen.contains_key(DETAILS)
        })
        .await?;
        let plugged = Instant::now();
        while plugged.elapsed() < INSTALLED {
            tokio::time::sleep(STEP).await;
        }
        dpu.write(pod, STATUS, r#"{"default":{"Status":"Ready","Reason":""}}"#)
            .await
    };
    let (networks, (details, whole), status) = tokio::try_join!(networks, details, status)?;
    Ok(Lap {
        whole,
        patches: [networks, details, status],
    })
}

impl Actor {
    async fn connect(kubeconfig: &Path) -> Result<Self> {
        let file = Kubeconfig::read_from(kubeconfig).context("the administrator's kubeconfig")?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let pods: Api<Pod> = Api::namespaced(Client::try_from(config)?, NAMESPACE);
        let heard = Heard::default();
        let watch = tokio::spawn(heard.clone().follow(pods.clone()));
        Ok(Self { pods, heard, watch })
    }

    /// Sets an annotation; the time that took.
    async fn write(&self, pod: &str, key: &str, value: &str) -> Result<Duration> {
        let begun = Instant::now();
        let patch = json!({"metadata": {"annotations": {key: value}}});
        self.pods
            .patch(pod, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .with_context(|| format!("annotation {key} of pod {pod}"))?;
        Ok(begun.elapsed())
    }

    /// Waits for news that make it true.
    async fn until(&self, pod: &str, good: impl Fn(&Annotations) -> bool) -> Result<()> {
        let wait = async {
            loop {
                let news = self.heard.news.notified();
                if self.heard.is(pod, &good) {
                    return;
                }
                news.await;
            }
        };
        tokio::time::timeout(LIMIT, wait)
            .await
            .with_context(|| format!("pod {pod}: no news for {LIMIT:?}"))
    }

    /// Looks at what it has heard, every 200 ms, as the programs do that are measured here.
    async fn look_until(&self, pod: &str, good: impl Fn(&Annotations) -> bool) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !self.heard.is(pod, &good) {
            if Instant::now() > deadline {
                bail!("pod {pod}: looked in vain for {LIMIT:?}");
            }
            tokio::time::sleep(STEP).await;
        }
        Ok(())
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Heard {
    fn is(&self, pod: &str, good: impl Fn(&Annotations) -> bool) -> bool {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.get(pod).is_some_and(good)
    }

    async fn follow(self, pods: Api<Pod>) {
        let events = watcher::watcher(pods, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            let Ok(Event::InitApply(pod) | Event::Apply(pod)) = event else {
                continue;
            };
            let name = pod.metadata.name.unwrap_or_default();
            let annotations = pod.metadata.annotations.unwrap_or_default();
            let mut all = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(name, annotations);
            drop(all);
            self.news.notify_waiters();
        }
    }
}
