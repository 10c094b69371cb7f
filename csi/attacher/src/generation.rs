//! Numbers of attachments, never used twice: fences late calls also over restarts and lost journals of attachments.

use std::sync::{Arc, Mutex, PoisonError};

use journal::{Error, Journal};

/// So many are reserved with one write; a restart skips what is left of them.
const BLOCK: u64 = 1000;
const KEY: &str = "next";

/// See the module.
#[derive(Debug)]
pub(crate) struct Generations {
    journal: Journal<u64>,
    /// The next number, and the first one that is not reserved.
    next: Mutex<(u64, u64)>,
}

impl Generations {
    /// Goes on behind what `journal` says.
    pub(crate) fn new(journal: Journal<u64>) -> Self {
        let next = journal.get(KEY).map_or(1, |record| record.value);
        Self {
            journal,
            next: Mutex::new((next, next)),
        }
    }

    /// A new number. Blocks on the disk once in a thousand calls.
    pub(crate) fn take(&self) -> Result<u64, Error> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.0 == next.1 {
            let end = next.0 + BLOCK;
            match self.journal.get(KEY) {
                None => self.journal.insert(KEY, end)?,
                Some(_) => self.journal.update(KEY, end)?,
            };
            next.1 = end;
        }
        next.0 += 1;
        Ok(next.0 - 1)
    }

    /// [`take`](Self::take) on the blocking pool.
    pub(crate) async fn next(self: Arc<Self>) -> Result<u64, Error> {
        match tokio::task::spawn_blocking(move || self.take()).await {
            Ok(taken) => taken,
            Err(ended) => std::panic::resume_unwind(ended.into_panic()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_comes_twice_over_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let open = || Generations::new(Journal::open(home.path(), "b").unwrap());
        let first = open();
        let taken: Vec<u64> = (0..1500).map(|_| first.take().unwrap()).collect();
        assert!(taken.is_sorted_by(|a, b| a < b));
        assert!(taken[0] > 0, "0 means whichever");
        drop(first);
        assert!(open().take().unwrap() > taken[1499]);
    }
}
