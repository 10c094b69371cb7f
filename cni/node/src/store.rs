//! The journal of attachments, for async callers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cni_bin::code;
use journal::{Boot, Journal};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::attachment::{AttachmentId, Record};
use crate::error::{Error, chain};

/// What a journal keeps of one attachment: [`Record`] where the attachment's port is, `host::record::Record` where its pod is.
pub(crate) trait Entry:
    Clone + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Whose record it is.
    fn id(&self) -> &AttachmentId;
    /// [`Store::ordinal`] of the operation that made it.
    fn ordinal(&self) -> u64;
}

impl Entry for Record {
    fn id(&self) -> &AttachmentId {
        &self.id
    }

    fn ordinal(&self) -> u64 {
        self.ordinal
    }
}

/// The attachments that this node remembers.
pub(crate) struct Store<R = Record> {
    journal: Arc<Journal<R>>,
    last: Arc<AtomicU64>,
    changed: watch::Sender<()>,
}

impl<R> Clone for Store<R> {
    fn clone(&self) -> Self {
        Self {
            journal: Arc::clone(&self.journal),
            last: Arc::clone(&self.last),
            changed: self.changed.clone(),
        }
    }
}

impl<R: Entry> Store<R> {
    /// Opens the journal and forgets what an earlier boot wrote: its links and namespaces are gone.
    pub(crate) fn open(directory: &Path, boot: &str) -> Result<Self, journal::Error> {
        let journal = Journal::<R>::open(directory, boot)?;
        for (key, record) in journal.iter() {
            if matches!(record.boot, Boot::Earlier { .. }) {
                journal.remove(&key)?;
            }
        }
        let last = journal
            .iter()
            .map(|(_, record)| record.value.ordinal())
            .max()
            .unwrap_or(0);
        Ok(Self {
            journal: Arc::new(journal),
            last: Arc::new(AtomicU64::new(last)),
            changed: watch::Sender::new(()),
        })
    }

    /// A number above all that were given before within this boot, also by an earlier process whose records are gone: the time
    /// since the boot in microseconds, or one more than the last.
    pub(crate) fn ordinal(&self) -> u64 {
        let now = microseconds();
        let above = |last: u64| now.max(last.saturating_add(1));
        // The closure always has a value: both sides hold the last number, which then becomes the new one.
        let (Ok(last) | Err(last)) =
            self.last
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                    Some(above(last))
                });
        above(last)
    }

    pub(crate) fn get(&self, id: &AttachmentId) -> Option<R> {
        self.journal
            .get(&id.key())
            .map(|record| record.value.clone())
    }

    pub(crate) fn all(&self) -> Vec<R> {
        self.journal
            .iter()
            .map(|(_, record)| record.value.clone())
            .collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.journal.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.journal.len()
    }

    /// Changes whenever a record comes or goes.
    pub(crate) fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Writes a record that was not there.
    pub(crate) async fn insert(&self, record: R) -> Result<(), Error> {
        self.blocking(move |journal| journal.insert(&record.id().key(), record.clone()).map(drop))
            .await?;
        self.changed.send_replace(());
        Ok(())
    }

    /// Writes a record in the place of an earlier one of the same attachment.
    pub(crate) async fn replace(&self, record: R) -> Result<(), Error> {
        self.blocking(move |journal| journal.update(&record.id().key(), record.clone()).map(drop))
            .await?;
        self.changed.send_replace(());
        Ok(())
    }

    /// Removes a record; none is fine.
    pub(crate) async fn forget(&self, id: &AttachmentId) -> Result<(), Error> {
        let key = id.key();
        self.blocking(move |journal| journal.remove(&key).map(drop))
            .await?;
        self.changed.send_replace(());
        Ok(())
    }

    async fn blocking(
        &self,
        work: impl FnOnce(&Journal<R>) -> Result<(), journal::Error> + Send + 'static,
    ) -> Result<(), Error> {
        let journal = Arc::clone(&self.journal);
        let failed = |why: String| {
            Error::new(
                code::IO_FAILURE,
                format!("The journal of attachments cannot be written: {why}"),
                "See that its directory's file system is writable and not full.",
            )
        };
        match tokio::task::spawn_blocking(move || work(&journal)).await {
            Ok(done) => done.map_err(|why| failed(chain(&why))),
            Err(why) => Err(failed(chain(&why))),
        }
    }
}

/// Since the boot, sleep included.
fn microseconds() -> u64 {
    // A clock that every kernel since 2.6.39 has; without it the numbers only count.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
        seconds * 1_000_000 + nanoseconds / 1000
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_rise_also_across_a_restart_without_records() {
        let home = tempfile::tempdir().unwrap();
        let open = || Store::<Record>::open(home.path(), "this-boot").unwrap();
        let store = open();
        let mut last = 0;
        for _ in 0..1000 {
            let next = store.ordinal();
            assert!(next > last);
            last = next;
        }
        drop(store);
        // Numbers that were asked for faster than the clock runs.
        while microseconds() <= last {
            std::hint::spin_loop();
        }
        assert!(open().ordinal() > last);
    }
}
