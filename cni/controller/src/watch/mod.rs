//! Kubernetes into the index: one watch for each kind.
//!
//! Objects are read, reduced and dropped one at a time. While the API server is away, what is in the
//! index stays.

mod lean;

use crate::index::{Index, Indexed};
use crate::shared::Shared;
use api::{Dpu, NetworkAttachmentDefinition, Subnet, VirtualMachineInstanceMigration, Vpc};
use futures::StreamExt as _;
use informer::{Informer, Told, key};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::DeserializeGuard;
use kube::{Client, Resource};
use lean::LeanPod;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use tokio::task::JoinSet;

/// The kinds that have to be listed before anything is planned.
pub const KINDS: [&str; 9] = [
    "Vpcs",
    "Subnets",
    "Nodes",
    "NetworkAttachmentDefinitions",
    "Services",
    "EndpointSlices",
    "Pods",
    "Dpus",
    "VirtualMachineInstanceMigrations",
];

/// How long a watch lasts, in seconds, if nobody says otherwise.
pub use informer::PERIOD;

/// Pods that have a node and have not ended: no others can have ports.
const PODS: &str = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";

/// Starts all watches, each asked for again after `period` seconds; they end when the set is
/// dropped.
pub fn start(client: &Client, shared: &Arc<Shared>, period: u32) -> JoinSet<()> {
    let [
        vpcs,
        subnets,
        nodes,
        nads,
        services,
        slices,
        pods,
        dpus,
        migrations,
    ] = KINDS;
    let mut set = JoinSet::new();
    let mut follow = Follow {
        client,
        shared,
        period,
        set: &mut set,
    };
    follow.guarded::<Vpc>(vpcs);
    follow.guarded::<Subnet>(subnets);
    follow.plain::<Node>(nodes);
    // Multus need not be there.
    let multus = follow.informer(nads).may_be_unknown();
    follow.these(multus, nads, read_guarded::<NetworkAttachmentDefinition>);
    // Nor KubeVirt.
    let kubevirt = follow.informer(migrations).may_be_unknown();
    follow.these(
        kubevirt,
        migrations,
        read_guarded::<VirtualMachineInstanceMigration>,
    );
    follow.plain::<Service>(services);
    follow.plain::<EndpointSlice>(slices);
    follow.guarded::<Dpu>(dpus);
    let some = follow.informer(pods).fields(PODS);
    follow.these(some, pods, |pod: &LeanPod| Ok(pod.pod()));
    set
}

/// What every watch needs.
struct Follow<'a> {
    client: &'a Client,
    shared: &'a Arc<Shared>,
    period: u32,
    set: &'a mut JoinSet<()>,
}

impl Follow<'_> {
    fn informer<O: Object>(&self, kind: &'static str) -> Informer<O> {
        Informer::new(self.client, kind).period(self.period)
    }

    /// A kind whose objects are all as its type says: the API server has the same one.
    fn plain<K: Indexed + Object>(&mut self, kind: &'static str) {
        self.these(self.informer(kind), kind, |object: &K| Ok(object));
    }

    /// A kind whose objects are as a CRD says that somebody else may have changed. One that cannot be
    /// read must not hide the others: a list would fail as a whole, again and again.
    fn guarded<K: Indexed + Object>(&mut self, kind: &'static str) {
        self.these(self.informer(kind), kind, read_guarded::<K>);
    }

    /// `O` is what comes, `K` what it is, unless it cannot be read.
    fn these<O: Object, K: Indexed + 'static>(
        &mut self,
        informer: Informer<O>,
        kind: &'static str,
        read: fn(&O) -> Result<&K, String>,
    ) {
        let shared = Arc::clone(self.shared);
        self.set.spawn(async move {
            let mut told = informer.told();
            while let Some(told) = told.next().await {
                take(told, read, kind, &shared);
            }
        });
    }
}

/// An object as it comes.
trait Object: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static {}

impl<O> Object for O where
    O: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static
{
}

fn read_guarded<K>(object: &DeserializeGuard<K>) -> Result<&K, String> {
    object.0.as_ref().map_err(ToString::to_string)
}

fn take<O: Resource, K: Indexed>(
    told: Told<O>,
    read: fn(&O) -> Result<&K, String>,
    kind: &'static str,
    shared: &Shared,
) {
    match told {
        Told::There(object) => match read(&object) {
            Ok(object) => shared.change(|index, dirty| object.put(index, dirty)),
            Err(error) => {
                let (ns, name) = key(&object);
                tracing::warn!(
                    kind,
                    ns,
                    name,
                    "the object is not as it should be, and changes nothing: {error}"
                );
            }
        },
        Told::Gone(key) => shared.change(|index, dirty| K::remove(key, index, dirty)),
        Told::Listed(there) => {
            shared.change(|index: &mut Index, dirty| {
                for key in K::keys(index) {
                    if !there.contains(&key) {
                        K::remove(key, index, dirty);
                    }
                }
            });
            shared.listed(kind);
            tracing::debug!(kind, "listed");
        }
        // What is known of the kind stays: a definition that is removed takes its objects along, one by one, and an API server that was just
        // started must not take networks away by not knowing them yet.
        Told::Unknown => shared.listed(kind),
    }
}
