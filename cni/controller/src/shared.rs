//! What the watchers write and the engine reads: the index, and what is dirty.

use crate::index::{Dirty, Index};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Notify, watch};

/// The index behind a lock that is never held across an await.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<(Index, Dirty)>,
    wake: Notify,
    pairs: Notify,
    unlisted: watch::Sender<BTreeSet<&'static str>>,
}

impl Shared {
    /// Around an index. It counts as complete once each of `kinds` has been listed.
    pub fn new(index: Index, kinds: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            state: Mutex::new((index, Dirty::default())),
            wake: Notify::new(),
            pairs: Notify::new(),
            unlisted: watch::Sender::new(kinds.into_iter().collect()),
        }
    }

    /// Changes the index. What that makes dirty wakes the engine.
    pub fn change<R>(&self, change: impl FnOnce(&mut Index, &mut Dirty) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (index, dirty) = &mut *state;
        let result = change(index, dirty);
        if std::mem::take(&mut dirty.pairs) {
            self.pairs.notify_one();
        }
        if !dirty.is_empty() {
            self.wake.notify_one();
        }
        result
    }

    /// Reads the index.
    pub fn read<R>(&self, read: impl FnOnce(&Index) -> R) -> R {
        read(&self.state.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Takes what is dirty.
    pub fn take_dirty(&self) -> Dirty {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.1)
    }

    /// Returns when something has become dirty since the last call.
    pub async fn dirtied(&self) {
        self.wake.notified().await;
    }

    /// Returns when Dpus, or Nodes, have changed since the last call.
    pub async fn pairs_changed(&self) {
        self.pairs.notified().await;
    }

    /// A kind has been listed.
    pub fn listed(&self, kind: &'static str) {
        self.unlisted.send_if_modified(|kinds| kinds.remove(kind));
    }

    /// The kinds that have not been listed yet, to be awaited.
    pub fn unlisted(&self) -> watch::Receiver<BTreeSet<&'static str>> {
        self.unlisted.subscribe()
    }
}
