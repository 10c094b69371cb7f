//! What there is of one kind of objects in Kubernetes, and what becomes of it.
//!
//! Objects are handed on one at a time and not kept. A lost API server is waited for. A watch that is cut goes on after the last change
//! that came; one that cannot is replaced by a list, and what is not in that is gone.

use std::collections::HashSet;
use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;

/// A watch is asked for again after this many seconds. The API server says a word at the latest shortly before, so that a connection
/// that is dead without having been closed (a machine or a path that vanished) is noticed soon after; what changes meanwhile waits so
/// long.
pub const PERIOD: u32 = 45;
/// A connection on which nothing came for this long is dead, whatever it is used for.
const SILENCE: Duration = Duration::from_secs(PERIOD as u64 + 15);

/// A client for watches of at most [`PERIOD`]: a connection that falls silent is given up.
///
/// # Errors
/// The configuration is of no use.
pub fn client(mut config: Config) -> kube::Result<Client> {
    config.read_timeout = Some(SILENCE);
    // Idle connections do not count.
    config.reset_reader_on_write = true;
    Client::try_from(config)
}

/// Namespace (empty for cluster-wide kinds) and name.
pub type Key = (String, String);

/// What is told of the objects of a kind.
#[derive(Debug)]
pub enum Told<O> {
    /// It is there, maybe changed.
    There(O),
    /// It is gone.
    Gone(Key),
    /// What is there was all told: what is not among these is gone.
    Listed(HashSet<Key>),
    /// The API server does not know the kind. Only where that [may be](Informer::may_be_unknown); if it comes to know it, that is told.
    Unknown,
}

/// The objects of a kind that somebody wants to hear of.
pub struct Informer<O> {
    api: Api<O>,
    config: watcher::Config,
    kind: &'static str,
    may_be_unknown: bool,
}

impl<O> Informer<O>
where
    O: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// All of them. `kind` is their name in the log, in the plural.
    #[must_use]
    pub fn new(client: &Client, kind: &'static str) -> Self {
        Self {
            api: Api::all(client.clone()),
            config: watcher::Config::default().timeout(PERIOD),
            kind,
            may_be_unknown: false,
        }
    }

    /// Only those that a field selector finds.
    #[must_use]
    pub fn fields(self, selector: &str) -> Self {
        Self {
            config: self.config.fields(selector),
            ..self
        }
    }

    /// Each watch lasts so many seconds, instead of [`PERIOD`].
    #[must_use]
    pub fn period(self, seconds: u32) -> Self {
        Self {
            config: self.config.timeout(seconds),
            ..self
        }
    }

    /// The kind's definition need not be there.
    #[must_use]
    pub fn may_be_unknown(self) -> Self {
        Self {
            may_be_unknown: true,
            ..self
        }
    }

    /// What is told; it has no end. Trouble with the API server is logged when it begins and when it ends.
    #[must_use]
    pub fn told(self) -> BoxStream<'static, Told<O>> {
        let Self { kind, .. } = self;
        let mut listing = HashSet::new();
        let mut failing = false;
        let events = watcher::watcher(self.api, self.config).default_backoff();
        let told = events.filter_map(move |event| {
            let told = match event {
                Ok(event) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!(kind, "the API server answers again");
                    }
                    told(event, &mut listing)
                }
                Err(error) if self.may_be_unknown && is_not_found(&error) => Some(Told::Unknown),
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        let error = anyhow::Error::from(error);
                        tracing::warn!(kind, "the watch failed and is tried again: {error:#}");
                    }
                    None
                }
            };
            std::future::ready(told)
        });
        told.boxed()
    }
}

fn told<O: Resource>(event: Event<O>, listing: &mut HashSet<Key>) -> Option<Told<O>> {
    Some(match event {
        Event::Init => {
            listing.clear();
            return None;
        }
        Event::InitApply(object) => {
            listing.insert(key(&object));
            Told::There(object)
        }
        Event::InitDone => Told::Listed(std::mem::take(listing)),
        Event::Apply(object) => Told::There(object),
        Event::Delete(object) => Told::Gone(key(&object)),
    })
}

/// The key of an object.
pub fn key(object: &impl Resource) -> Key {
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
