//! All attachments as they were known last, and everybody who wants to know of changes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use proto::attacher::v1::{Attachment, InventoryResponse};
use proto::volume::v1::Epoch;
use tokio::sync::broadcast;

use crate::id::Id;
use crate::metrics::Metrics;

/// A watcher that is so many events behind is ended.
const BEHIND: usize = 1024;

/// What a watcher is told.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// New or changed.
    Attachment(Box<Attachment>),
    /// Gone.
    Detached(Id),
    /// The number of free functions changed.
    Inventory(Box<InventoryResponse>),
}

/// A watcher's begin: what there is, and all changes after exactly that.
pub(crate) struct Subscription {
    pub(crate) present: Vec<Attachment>,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) changes: broadcast::Receiver<Change>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Hub {
    known: Mutex<Known>,
    changes: broadcast::Sender<Change>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Known {
    attachments: BTreeMap<Id, Attachment>,
    epoch: Option<Epoch>,
}

impl Hub {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            known: Mutex::default(),
            changes: broadcast::Sender::new(BEHIND),
            metrics,
        }
    }

    /// Takes over `attachment`, with `since` filled in, and returns it so. Watchers hear of it if anything differs.
    pub(crate) fn put(&self, id: &Id, mut attachment: Attachment) -> Attachment {
        let mut known = self.known();
        let before = known.attachments.get(id);
        attachment.since = match before {
            Some(before) if before.state == attachment.state => before.since,
            _ => Some(SystemTime::now().into()),
        };
        if before == Some(&attachment) {
            return attachment;
        }
        self.metrics
            .moved(before.map(Attachment::state), Some(attachment.state()));
        if before.map(|b| b.state) != Some(attachment.state) {
            tracing::info!(
                host = id.host, volume = %id.uuid, state = attachment.state().as_str_name(),
                why = attachment.message, "attachment"
            );
        }
        known.attachments.insert(id.clone(), attachment.clone());
        // Under the lock, so that a subscriber sees each change once. Nobody listening is no error.
        let _ = self
            .changes
            .send(Change::Attachment(Box::new(attachment.clone())));
        attachment
    }

    pub(crate) fn remove(&self, id: &Id) {
        let mut known = self.known();
        if let Some(before) = known.attachments.remove(id) {
            self.metrics.moved(Some(before.state()), None);
            tracing::info!(host = id.host, volume = %id.uuid, "detached");
            let _ = self.changes.send(Change::Detached(id.clone()));
        }
    }

    /// Tells watchers of the card's functions.
    pub(crate) fn inventory(&self, inventory: InventoryResponse) {
        let mut known = self.known();
        known.epoch = inventory.epoch.clone();
        let _ = self.changes.send(Change::Inventory(Box::new(inventory)));
    }

    pub(crate) fn subscribe(&self) -> Subscription {
        let known = self.known();
        Subscription {
            present: known.attachments.values().cloned().collect(),
            epoch: known.epoch.clone(),
            changes: self.changes.subscribe(),
        }
    }

    pub(crate) fn get(&self, id: &Id) -> Option<Attachment> {
        self.known().attachments.get(id).cloned()
    }

    /// Up to `most` attachments behind `after`, and whether there are more.
    pub(crate) fn page(
        &self,
        host: &str,
        after: Option<&Id>,
        most: usize,
    ) -> (Vec<(Id, Attachment)>, bool) {
        let known = self.known();
        let mut rest = known.attachments.iter().filter(|(id, _)| {
            (host.is_empty() || id.host == host) && after.is_none_or(|a| *id > a)
        });
        let page = rest
            .by_ref()
            .take(most)
            .map(|(id, a)| (id.clone(), a.clone()))
            .collect();
        (page, rest.next().is_some())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing under this lock leaves half a change when it panics.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
