//! One operation at a time for each key; one that waits too long is told so, and background work gives way.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::Instant;

/// How long an operation waits for another one. The sidecars' calls have 10 s.
const PATIENCE: Duration = Duration::from_millis(1500);

#[derive(Debug, Default)]
struct Key {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// Somebody waits.
    wanted: Arc<Notify>,
}

/// The keys that are in use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keyed(Arc<Mutex<HashMap<String, Arc<Key>>>>);

/// Keys that are this operation's until it is dropped.
#[derive(Debug)]
pub(crate) struct Locked {
    keyed: Keyed,
    held: Vec<(String, Arc<Key>, OwnedMutexGuard<()>)>,
}

impl Keyed {
    fn key(&self, name: &str) -> Arc<Key> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(keys.entry(name.to_owned()).or_default())
    }

    /// Waits for all keys, in one order for everybody. The name of the one that did not become free in time otherwise.
    pub(crate) async fn lock<S: ToString>(
        &self,
        names: impl IntoIterator<Item = S>,
    ) -> Result<Locked, String> {
        let names: BTreeSet<String> = names.into_iter().map(|name| name.to_string()).collect();
        let deadline = Instant::now() + PATIENCE;
        let mut locked = Locked {
            keyed: self.clone(),
            held: Vec::new(),
        };
        for name in names {
            let key = self.key(&name);
            let guard = match Arc::clone(&key.lock).try_lock_owned() {
                Ok(guard) => guard,
                Err(_) => {
                    key.wanted.notify_one();
                    let waiting = Arc::clone(&key.lock).lock_owned();
                    match tokio::time::timeout_at(deadline, waiting).await {
                        Ok(guard) => guard,
                        Err(_) => return Err(name),
                    }
                }
            };
            locked.held.push((name, key, guard));
        }
        Ok(locked)
    }

    /// All keys, if all are free now.
    pub(crate) fn try_lock<S: ToString>(
        &self,
        names: impl IntoIterator<Item = S>,
    ) -> Option<Locked> {
        let mut locked = Locked {
            keyed: self.clone(),
            held: Vec::new(),
        };
        for name in names.into_iter().map(|name| name.to_string()) {
            let key = self.key(&name);
            let guard = Arc::clone(&key.lock).try_lock_owned().ok()?;
            locked.held.push((name, key, guard));
        }
        Some(locked)
    }
}

impl Locked {
    /// Returns when somebody waits for one of these keys.
    pub(crate) async fn wanted(&self) {
        let all = self
            .held
            .iter()
            .map(|(_, key, _)| Box::pin(key.wanted.notified()));
        if self.held.is_empty() {
            std::future::pending::<()>().await;
        }
        futures::future::select_all(all).await;
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let mut keys = self.keyed.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, key, guard) in self.held.drain(..) {
            drop(guard);
            // The map's and ours: nobody else has it or waits for it.
            if Arc::strong_count(&key) <= 2 {
                keys.remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_a_moment_and_the_first_hears_of_it() {
        let keyed = Keyed::default();
        let first = keyed.lock(["a", "b"]).await.unwrap();
        assert!(keyed.try_lock(["b"]).is_none());
        let (second, ()) = tokio::join!(keyed.lock(["b", "c"]), first.wanted());
        assert_eq!(second.unwrap_err(), "b");
        assert!(keyed.lock(["c"]).await.is_ok());
        drop(first);
        assert!(keyed.lock(["a", "b"]).await.is_ok());
        assert!(keyed.0.lock().unwrap().is_empty());
    }
}
