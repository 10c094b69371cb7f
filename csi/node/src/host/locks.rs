//! One call at a time per volume. A second one waits a moment, then is told to come again (CSI specification, "ABORTED").

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::deadline::Deadline;
use super::error::Error;

/// How long a call waits for another one on the same volume.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Entry {
    /// Who has it or wants it. At 0 the entry goes.
    users: usize,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// What the holder does.
    holder: Mutex<&'static str>,
}

/// Locks that exist as long as somebody holds or wants them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Locks(Arc<Mutex<HashMap<String, Entry>>>);

/// A volume that is this call's until dropped.
#[derive(Debug)]
pub(crate) struct Held {
    locks: Locks,
    volume: String,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Locks {
    /// Takes the volume for `call`.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when another call has it for too long.
    pub(crate) async fn lock(
        &self,
        volume: &str,
        call: &'static str,
        deadline: Deadline,
    ) -> Result<Held, Error> {
        let state = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = all.entry(volume.to_owned()).or_default();
            entry.users += 1;
            Arc::clone(&entry.state)
        };
        // From here on it is counted down again, also if the wait is given up.
        let mut held = Held {
            locks: self.clone(),
            volume: volume.to_owned(),
            guard: None,
        };
        let until = deadline.end().min(Instant::now() + PATIENCE);
        let waiting = Arc::clone(&state.lock).lock_owned();
        let Ok(guard) = tokio::time::timeout_at(until, waiting).await else {
            let holder = *state.holder.lock().unwrap_or_else(PoisonError::into_inner);
            return Err(Error::Busy(format!(
                "volume {volume}: {holder} is still under way; repeat {call} later"
            )));
        };
        *state.holder.lock().unwrap_or_else(PoisonError::into_inner) = call;
        held.guard = Some(guard);
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut all = self.locks.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.guard = None;
        if let Some(entry) = all.get_mut(&self.volume) {
            entry.users -= 1;
            if entry.users == 0 {
                all.remove(&self.volume);
            }
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
        let first = locks.lock("a", "NodeStageVolume", deadline).await.unwrap();
        for _ in 0..2 {
            let before = Instant::now();
            let second = locks.lock("a", "NodeUnstageVolume", deadline).await;
            let error = second.unwrap_err();
            assert_eq!(Instant::now() - before, PATIENCE);
            assert_eq!(error.code(), tonic::Code::Aborted);
            assert!(
                error
                    .to_string()
                    .contains("NodeStageVolume is still under way")
            );
        }
        let other = locks.lock("b", "NodeStageVolume", deadline).await.unwrap();
        drop((first, other));
        assert!(locks.0.lock().unwrap().is_empty());
    }
}
