//! Kubernetes into the index: one watch for each kind.
//!
//! Objects are read, reduced and dropped one at a time. A lost API server is waited for; what is in
//! the index stays.

use crate::index::{Index, Indexed, ObjectKey};
use crate::shared::Shared;
use api::{NetworkAttachmentDefinition, Subnet, Vpc};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use tokio::task::JoinSet;

/// The kinds that have to be listed before anything is planned.
pub(crate) const KINDS: [&str; 7] = [
    "Vpcs",
    "Subnets",
    "Nodes",
    "NetworkAttachmentDefinitions",
    "Services",
    "EndpointSlices",
    "Pods",
];

/// Pods that have a node and have not ended: no others can have ports.
const PODS: &str = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";

/// Starts all watches; they end when the set is dropped.
pub(crate) fn start(client: &Client, shared: &Arc<Shared>) -> JoinSet<()> {
    let all = watcher::Config::default;
    let mut set = JoinSet::new();
    let [vpcs, subnets, nodes, nads, services, slices, pods] = KINDS;
    set.spawn(follow(
        Api::<Vpc>::all(client.clone()),
        all(),
        vpcs,
        shared.clone(),
    ));
    set.spawn(follow(
        Api::<Subnet>::all(client.clone()),
        all(),
        subnets,
        shared.clone(),
    ));
    set.spawn(follow(
        Api::<Node>::all(client.clone()),
        all(),
        nodes,
        shared.clone(),
    ));
    let api = Api::<NetworkAttachmentDefinition>::all(client.clone());
    set.spawn(follow(api, all(), nads, shared.clone()));
    set.spawn(follow(
        Api::<Service>::all(client.clone()),
        all(),
        services,
        shared.clone(),
    ));
    set.spawn(follow(
        Api::<EndpointSlice>::all(client.clone()),
        all(),
        slices,
        shared.clone(),
    ));
    let some = all().fields(PODS);
    set.spawn(follow(
        Api::<Pod>::all(client.clone()),
        some,
        pods,
        shared.clone(),
    ));
    set
}

async fn follow<K>(api: Api<K>, config: watcher::Config, kind: &'static str, shared: Arc<Shared>)
where
    K: Indexed + Clone + DeserializeOwned + Debug + Send + 'static,
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
                take(event, &mut listing, kind, &shared);
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

fn take<K: Indexed>(
    event: Event<K>,
    listing: &mut HashSet<ObjectKey>,
    kind: &'static str,
    shared: &Shared,
) {
    let put = |object: &K| shared.change(|index, dirty| object.put(index, dirty));
    match event {
        Event::Init => listing.clear(),
        Event::InitApply(object) => {
            listing.insert(object.key());
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
            shared.change(|index, dirty| K::remove(object.key(), index, dirty));
        }
    }
}

fn is_not_found(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}
