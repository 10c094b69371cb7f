//! Kubernetes into the index: one watch for each kind.
//!
//! Objects are read, reduced and dropped one at a time. A lost API server is waited for; what is in
//! the index stays. A watch that is cut goes on after the last change that came; one that cannot is
//! replaced by a list, and what is not in that is gone.

mod lean;

use crate::index::{Index, Indexed, ObjectKey};
use crate::shared::Shared;
use api::{Dpu, NetworkAttachmentDefinition, Subnet, Vpc};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use lean::LeanPod;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// The kinds that have to be listed before anything is planned.
pub const KINDS: [&str; 8] = [
    "Vpcs",
    "Subnets",
    "Nodes",
    "NetworkAttachmentDefinitions",
    "Services",
    "EndpointSlices",
    "Pods",
    "Dpus",
];

/// A watch is asked for again after this many seconds. The API server says a word at the latest
/// shortly before, so that a connection that is dead without having been closed (a machine or a
/// path that vanished) is noticed 5 s after; pods that come meanwhile wait so long.
pub const PERIOD: u32 = 45;
/// A connection on which nothing came for this long is dead, whatever it is used for.
pub(crate) const SILENCE: Duration = Duration::from_secs(PERIOD as u64 + 15);

/// Pods that have a node and have not ended: no others can have ports.
const PODS: &str = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";

/// Starts all watches, each asked for again after `period` seconds; they end when the set is
/// dropped.
pub fn start(client: &Client, shared: &Arc<Shared>, period: u32) -> JoinSet<()> {
    let all = || watcher::Config::default().timeout(period);
    let mut set = JoinSet::new();
    let [vpcs, subnets, nodes, nads, services, slices, pods, dpus] = KINDS;
    set.spawn(follow(guarded::<Vpc>(client), all(), vpcs, shared.clone()));
    set.spawn(follow(
        guarded::<Subnet>(client),
        all(),
        subnets,
        shared.clone(),
    ));
    set.spawn(follow(plain::<Node>(client), all(), nodes, shared.clone()));
    set.spawn(follow(
        guarded::<NetworkAttachmentDefinition>(client),
        all(),
        nads,
        shared.clone(),
    ));
    set.spawn(follow(
        plain::<Service>(client),
        all(),
        services,
        shared.clone(),
    ));
    set.spawn(follow(
        plain::<EndpointSlice>(client),
        all(),
        slices,
        shared.clone(),
    ));
    set.spawn(follow(guarded::<Dpu>(client), all(), dpus, shared.clone()));
    let some = all().fields(PODS);
    let lean = Source {
        api: Api::all(client.clone()),
        read: |pod: &LeanPod| Ok(pod.pod()),
    };
    set.spawn(follow(lean, some, pods, shared.clone()));
    set
}

/// How objects of a kind are got: `O` is what comes, `K` what it is, unless it cannot be read.
struct Source<O, K> {
    api: Api<O>,
    read: fn(&O) -> Result<&K, String>,
}

/// A kind whose objects are all as its type says: the API server has the same one.
fn plain<K>(client: &Client) -> Source<K, K>
where
    K: Indexed + Resource<DynamicType = ()>,
{
    Source {
        api: Api::all(client.clone()),
        read: |object| Ok(object),
    }
}

/// A kind whose objects are as a CRD says that somebody else may have changed. One that cannot be
/// read must not hide the others: a list would fail as a whole, again and again.
fn guarded<K>(client: &Client) -> Source<DeserializeGuard<K>, K>
where
    K: Indexed + Resource<DynamicType = ()>,
{
    Source {
        api: Api::all(client.clone()),
        read: |object| object.0.as_ref().map_err(ToString::to_string),
    }
}

async fn follow<O, K>(
    Source { api, read }: Source<O, K>,
    config: watcher::Config,
    kind: &'static str,
    shared: Arc<Shared>,
) where
    O: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    K: Indexed,
{
    let mut listing: HashSet<ObjectKey> = HashSet::new();
    let mut failing = false;
    let events = watcher::watcher(api, config).default_backoff();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if std::mem::take(&mut failing) {
                    tracing::info!(kind, "the API server answers again");
                }
                take(event, read, &mut listing, kind, &shared);
            }
            Err(error) => {
                // Multus need not be there. If its definition comes later, a later list finds it.
                if kind == KINDS[3] && is_not_found(&error) {
                    shared.listed(kind);
                    continue;
                }
                if !std::mem::replace(&mut failing, true) {
                    let error = anyhow::Error::from(error);
                    tracing::warn!(kind, "the watch failed and is tried again: {error:#}");
                }
            }
        }
    }
}

fn take<O: Resource, K: Indexed>(
    event: Event<O>,
    read: fn(&O) -> Result<&K, String>,
    listing: &mut HashSet<ObjectKey>,
    kind: &'static str,
    shared: &Shared,
) {
    let put = |object: &O| match read(object) {
        Ok(object) => shared.change(|index, dirty| object.put(index, dirty)),
        Err(error) => {
            let (ns, name) = key(object);
            tracing::warn!(
                kind,
                ns,
                name,
                "the object is not as it should be, and changes nothing: {error}"
            );
        }
    };
    match event {
        Event::Init => listing.clear(),
        Event::InitApply(object) => {
            listing.insert(key(&object));
            put(&object);
        }
        Event::InitDone => {
            shared.change(|index: &mut Index, dirty| {
                for key in K::keys(index) {
                    if !listing.contains(&key) {
                        K::remove(key, index, dirty);
                    }
                }
            });
            *listing = HashSet::new();
            shared.listed(kind);
            tracing::debug!(kind, "listed");
        }
        Event::Apply(object) => put(&object),
        Event::Delete(object) => {
            shared.change(|index, dirty| K::remove(key(&object), index, dirty));
        }
    }
}

/// Namespace (empty for cluster-wide kinds) and name.
fn key(object: &impl Resource) -> ObjectKey {
    let meta = object.meta();
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

fn is_not_found(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}
