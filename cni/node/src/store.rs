//! The journal of attachments, for async callers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cni_bin::code;
use journal::{Boot, Journal};
use tokio::sync::watch;

use crate::attachment::{AttachmentId, Record};
use crate::error::{Error, chain};

/// The attachments that this node remembers.
#[derive(Clone)]
pub(crate) struct Store {
    journal: Arc<Journal<Record>>,
    next: Arc<AtomicU64>,
    changed: watch::Sender<()>,
}

impl Store {
    /// Opens the journal and forgets what an earlier boot wrote: its links and namespaces are gone.
    pub(crate) fn open(directory: &Path, boot: &str) -> Result<Self, journal::Error> {
        let journal = Journal::<Record>::open(directory, boot)?;
        for (key, record) in journal.iter() {
            if matches!(record.boot, Boot::Earlier { .. }) {
                journal.remove(&key)?;
            }
        }
        let next = journal
            .iter()
            .map(|(_, record)| record.value.ordinal + 1)
            .max()
            .unwrap_or(0);
        Ok(Self {
            journal: Arc::new(journal),
            next: Arc::new(AtomicU64::new(next)),
            changed: watch::Sender::new(()),
        })
    }

    /// A number above those of all records before.
    pub(crate) fn ordinal(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn get(&self, id: &AttachmentId) -> Option<Record> {
        self.journal
            .get(&id.key())
            .map(|record| record.value.clone())
    }

    pub(crate) fn all(&self) -> Vec<Record> {
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
    pub(crate) async fn insert(&self, record: Record) -> Result<(), Error> {
        self.blocking(move |journal| journal.insert(&record.id.key(), record.clone()).map(drop))
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
        work: impl FnOnce(&Journal<Record>) -> Result<(), journal::Error> + Send + 'static,
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
