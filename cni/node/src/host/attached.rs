//! What the DPU is told whenever it is told everything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use channel::proto::Attachment;

use super::record::Record;
use crate::attachment::AttachmentId;

/// The attachments of this host. One enters before the DPU is asked for it, and leaves before the DPU is told to detach it: what is
/// here when a session begins is what the DPU plugs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attached(Arc<Mutex<BTreeMap<AttachmentId, Attachment>>>);

impl Attached {
    pub(crate) fn enter(&self, record: &Record) {
        self.locked().insert(record.id.clone(), record.attachment());
    }

    /// Takes out this very attempt.
    pub(crate) fn leave(&self, record: &Record) {
        let mut all = self.locked();
        if all
            .get(&record.id)
            .is_some_and(|one| one.attempt == record.ordinal)
        {
            all.remove(&record.id);
        }
    }

    pub(crate) fn all(&self) -> Vec<Attachment> {
        self.locked().values().cloned().collect()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<AttachmentId, Attachment>> {
        // Nothing that holds the lock can panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
