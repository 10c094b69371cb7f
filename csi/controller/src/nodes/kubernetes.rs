//! Nodes from Kubernetes: CSINodes and Nodes, each watched and reduced to what counts.
//!
//! While the API server is away, what is known stays. Until both kinds were listed for the first time nothing is known,
//! and whoever asks is told to come again.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use daemon::readiness::Check;
use futures::StreamExt as _;
use informer::{Informer, Told};
use k8s_openapi::api::core::v1::Node as NodeObject;
use k8s_openapi::api::storage::v1::CSINode;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tonic::Status;

use super::Set;
use super::rule::{Machine, Registration, Rule, set};
use crate::status::Answer;

/// A connection to the API server that is found by the pod's service account or by KUBECONFIG.
///
/// # Errors
/// There is neither.
pub(crate) async fn client() -> anyhow::Result<Client> {
    let config = kube::Config::infer().await.context(
        "finding the API server: run in a pod with a service account, set KUBECONFIG, or give --nodes FILE",
    );
    Ok(informer::client(config?)?)
}

/// What Kubernetes says of the nodes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Cache(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rule: Rule,
    known: Mutex<Known>,
    listed: Check,
}

#[derive(Debug, Default)]
struct Known {
    registrations: BTreeMap<String, Registration>,
    machines: BTreeMap<String, Machine>,
    /// Kinds that were listed.
    listed: HashSet<&'static str>,
    /// Made of them when somebody asks.
    set: Option<Arc<Set>>,
}

impl Cache {
    /// Starts the watches, which end when the set is dropped. `check` is content once both kinds were listed.
    pub(crate) fn start(client: &Client, rule: Rule, check: Check) -> (Self, JoinSet<()>) {
        let cache = Self(Arc::new(Shared {
            rule,
            known: Mutex::default(),
            listed: check,
        }));
        let mut watches = JoinSet::new();
        watches.spawn(follow::<CSINode>(client.clone(), cache.clone()));
        watches.spawn(follow::<NodeObject>(client.clone(), cache.clone()));
        (cache, watches)
    }

    /// The nodes.
    ///
    /// # Errors
    /// UNAVAILABLE: not known yet.
    pub(crate) fn read(&self) -> Answer<Arc<Set>> {
        let mut known = self.known();
        for kind in [CSINode::KINDS, NodeObject::KINDS] {
            if !known.listed.contains(kind) {
                return Err(Status::unavailable(format!(
                    "the cluster's {kind} are not known yet; see whether the API server answers csi-controller and its \
                     role lets it list them, then call again"
                )));
            }
        }
        if let Some(set) = &known.set {
            return Ok(Arc::clone(set));
        }
        let made = Arc::new(set(&known.registrations, &known.machines, &self.0.rule));
        known.set = Some(Arc::clone(&made));
        Ok(made)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put<K: Kind>(&self, object: &K) {
        let fact = object.fact(&self.0.rule);
        let mut known = self.known();
        let facts = K::facts(&mut known);
        let name = name(object);
        if facts.get(&name) == fact.as_ref() {
            return;
        }
        match fact {
            Some(fact) => drop(facts.insert(name, fact)),
            None => drop(facts.remove(&name)),
        }
        known.set = None;
    }

    fn keep<K: Kind>(&self, is_there: impl Fn(&str) -> bool) {
        let mut known = self.known();
        K::facts(&mut known).retain(|name, _| is_there(name));
        known.set = None;
    }

    fn listed<K: Kind>(&self) {
        let mut known = self.known();
        known.listed.insert(K::KINDS);
        if known.listed.len() == 2 {
            self.0.listed.ready();
        }
    }
}

/// A kind that is watched.
trait Kind: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static {
    type Fact: PartialEq;
    /// What its objects are called.
    const KINDS: &'static str;
    /// What counts of an object.
    fn fact(&self, rule: &Rule) -> Option<Self::Fact>;
    fn facts(known: &mut Known) -> &mut BTreeMap<String, Self::Fact>;
}

impl Kind for CSINode {
    type Fact = Registration;
    const KINDS: &'static str = "CSINodes";

    fn fact(&self, rule: &Rule) -> Option<Registration> {
        Registration::of(self, rule)
    }

    fn facts(known: &mut Known) -> &mut BTreeMap<String, Registration> {
        &mut known.registrations
    }
}

impl Kind for NodeObject {
    type Fact = Machine;
    const KINDS: &'static str = "Nodes";

    fn fact(&self, _: &Rule) -> Option<Machine> {
        Some(Machine::of(self))
    }

    fn facts(known: &mut Known) -> &mut BTreeMap<String, Machine> {
        &mut known.machines
    }
}

async fn follow<K: Kind>(client: Client, cache: Cache) {
    let mut told = Informer::<K>::new(&client, K::KINDS).told();
    while let Some(told) = told.next().await {
        match told {
            Told::There(object) => cache.put(&object),
            Told::Gone((_, gone)) => cache.keep::<K>(|name| name != gone),
            Told::Listed(there) => {
                let there: HashSet<String> = there.into_iter().map(|(_, name)| name).collect();
                cache.keep::<K>(|name| there.contains(name));
                cache.listed::<K>();
            }
            Told::Unknown => {}
        }
    }
}

fn name(object: &impl Resource) -> String {
    object.meta().name.clone().unwrap_or_default()
}
