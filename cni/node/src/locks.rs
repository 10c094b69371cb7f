//! Mutual exclusion by key: one operation at a time per attachment, any number of attachments at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Keys = HashMap<String, Arc<tokio::sync::Mutex<()>>>;

/// A set of locks that exist as long as somebody holds or wants them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Locks(Arc<Mutex<Keys>>);

/// A held lock.
#[derive(Debug)]
pub(crate) struct Held {
    locks: Locks,
    key: String,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Locks {
    /// Waits for the lock, in order of arrival.
    pub(crate) async fn lock(&self, key: &str) -> Held {
        let lock = self.entry(key);
        // Held from here on, so that the entry is cleaned up even if the wait is given up.
        let mut held = Held {
            locks: self.clone(),
            key: key.to_owned(),
            guard: None,
        };
        held.guard = Some(lock.lock_owned().await);
        held
    }

    /// The lock, if nobody has it.
    pub(crate) fn try_lock(&self, key: &str) -> Option<Held> {
        let guard = self.entry(key).try_lock_owned().ok()?;
        Some(Held {
            locks: self.clone(),
            key: key.to_owned(),
            guard: Some(guard),
        })
    }

    fn entry(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(keys.entry(key.to_owned()).or_default())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut keys = self.locks.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.guard = None;
        // Under the map's lock nobody else can come to hold the entry meanwhile.
        if keys
            .get(&self.key)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            keys.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_per_key_and_nothing_left_behind() {
        let locks = Locks::default();
        let first = locks.lock("a").await;
        assert!(locks.try_lock("a").is_none());
        let other = locks.lock("b").await;
        let waiting = tokio::spawn({
            let locks = locks.clone();
            async move { drop(locks.lock("a").await) }
        });
        tokio::task::yield_now().await;
        drop(first);
        waiting.await.unwrap();
        drop(other);
        assert!(locks.0.lock().unwrap().is_empty());
    }
}
