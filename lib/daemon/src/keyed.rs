//! One operation at a time for each object, any number of objects at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

/// How long a call waits for another one on the same object before its caller is told to come again.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Entry {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// What the holder does, if it said so.
    holder: Mutex<&'static str>,
}

impl Entry {
    fn holder(&self) -> MutexGuard<'_, &'static str> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Locks that exist as long as somebody holds or wants them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Locks(Arc<Mutex<HashMap<String, Arc<Entry>>>>);

/// An object that is this operation's until dropped.
#[derive(Debug)]
pub struct Held {
    locks: Locks,
    key: String,
    /// Counts who holds or wants it.
    entry: Arc<Entry>,
    guard: Option<OwnedMutexGuard<()>>,
}

/// Another call has the object for too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {holder} is still under way; repeat {call} later")]
pub struct Busy {
    /// The object, as it was asked for.
    pub object: String,
    /// What has it.
    pub holder: &'static str,
    /// What wanted it.
    pub call: &'static str,
}

impl Locks {
    /// Waits for the object, in order of arrival.
    pub async fn lock(&self, key: &str) -> Held {
        // From here on the entry is cleaned up, also if the wait is given up.
        let mut held = self.wanted(key);
        held.guard = Some(Arc::clone(&held.entry.lock).lock_owned().await);
        held
    }

    /// The object, if nobody has it.
    pub fn try_lock(&self, key: &str) -> Option<Held> {
        let mut held = self.wanted(key);
        held.guard = Some(Arc::clone(&held.entry.lock).try_lock_owned().ok()?);
        Some(held)
    }

    /// Waits a moment for the object (kind and name), and at most until `end`; `call` is what others are told meanwhile.
    ///
    /// # Errors
    /// It did not become free.
    pub async fn lock_for(
        &self,
        object: &str,
        call: &'static str,
        end: Instant,
    ) -> Result<Held, Busy> {
        let mut held = self.wanted(object);
        let until = end.min(Instant::now() + PATIENCE);
        let waiting = Arc::clone(&held.entry.lock).lock_owned();
        let Ok(guard) = tokio::time::timeout_at(until, waiting).await else {
            return Err(Busy {
                object: object.to_owned(),
                holder: *held.entry.holder(),
                call,
            });
        };
        *held.entry.holder() = call;
        held.guard = Some(guard);
        Ok(held)
    }

    fn wanted(&self, key: &str) -> Held {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Held {
            locks: self.clone(),
            key: key.to_owned(),
            entry: Arc::clone(entries.entry(key.to_owned()).or_default()),
            guard: None,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut entries = self.locks.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.guard = None;
        // The map's and ours: under the map's lock nobody else can come to want it meanwhile.
        if Arc::strong_count(&self.entry) == 2 {
            entries.remove(&self.key);
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

    #[tokio::test(start_paused = true)]
    async fn the_second_is_told_what_the_first_does() {
        let locks = Locks::default();
        let begun = Instant::now();
        let late = begun + Duration::from_secs(60);
        let first = locks.lock_for("volume a", "create", late).await.unwrap();
        let busy = locks.lock_for("volume a", "delete", late).await;
        assert_eq!(
            busy.unwrap_err().to_string(),
            "volume a: create is still under way; repeat delete later"
        );
        assert_eq!(begun.elapsed(), PATIENCE);
        let soon = Instant::now() + PATIENCE / 4;
        let busy = locks.lock_for("volume a", "delete", soon).await;
        assert_eq!(busy.unwrap_err().holder, "create");
        assert_eq!(Instant::now(), soon);
        drop(first);
        assert!(locks.0.lock().unwrap().is_empty());
    }
}
