//! One call at a time for each object. A second one waits a moment, then is told to come again (CSI specification,
//! "ABORTED").

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use tonic::Status;

use crate::deadline::Deadline;
use crate::status::Answer;

/// How long a call waits for another one on the same object.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Entry {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// What the holder does.
    holder: Mutex<&'static str>,
}

/// Locks that exist as long as somebody holds or wants them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Locks(Arc<Mutex<HashMap<String, Arc<Entry>>>>);

/// An object that is this call's until dropped.
#[derive(Debug)]
pub(crate) struct Held {
    locks: Locks,
    object: String,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Locks {
    /// Takes `object` (kind and name) for `call`.
    ///
    /// # Errors
    ///
    /// ABORTED when another call has it for too long.
    pub(crate) async fn lock(
        &self,
        object: String,
        call: &'static str,
        deadline: Deadline,
    ) -> Answer<Held> {
        let entry = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(object.clone()).or_default())
        };
        // From here on the entry is cleaned up, also if the wait is given up.
        let mut held = Held {
            locks: self.clone(),
            object,
            guard: None,
        };
        let until = deadline.end().min(Instant::now() + PATIENCE);
        let waiting = Arc::clone(&entry.lock).lock_owned();
        let Ok(guard) = tokio::time::timeout_at(until, waiting).await else {
            let holder = *entry.holder.lock().unwrap_or_else(PoisonError::into_inner);
            // Before `held` looks who else wants it.
            drop(entry);
            return Err(Status::aborted(format!(
                "{}: {holder} is still under way; call {call} again",
                held.object
            )));
        };
        *entry.holder.lock().unwrap_or_else(PoisonError::into_inner) = call;
        held.guard = Some(guard);
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut all = self.locks.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.guard = None;
        // Under the map's lock nobody else can come to want it meanwhile.
        if all
            .get(&self.object)
            .is_some_and(|entry| Arc::strong_count(entry) == 1)
        {
            all.remove(&self.object);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::MetadataMap;

    #[tokio::test(start_paused = true)]
    async fn the_second_call_is_told_what_the_first_does() {
        let locks = Locks::default();
        let deadline = Deadline::of(&MetadataMap::new());
        let lock = |object: &str, call| locks.lock(object.to_owned(), call, deadline);
        let first = lock("volume a", "ControllerPublishVolume").await.unwrap();
        let before = Instant::now();
        let error = lock("volume a", "DeleteVolume").await.unwrap_err();
        assert_eq!(Instant::now() - before, PATIENCE);
        assert_eq!(error.code(), tonic::Code::Aborted);
        assert!(
            error
                .message()
                .contains("ControllerPublishVolume is still under way")
        );
        let other = lock("volume b", "DeleteVolume").await.unwrap();
        drop((first, other));
        assert!(locks.0.lock().unwrap().is_empty());
    }
}
