//! One call at a time for each object. A second one waits a moment, then is told to come again (CSI specification,
//! "ABORTED").

use std::time::Duration;

use daemon::keyed::{self, Busy, Held};
use proto::deadline::Deadline;
use tokio::time::Instant;
use tonic::Status;

use crate::status::Answer;

/// How long a call waits for another one on the same object.
const PATIENCE: Duration = Duration::from_secs(2);

/// Locks of objects. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Locks(keyed::Locks);

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
        let until = deadline.end().min(Instant::now() + PATIENCE);
        let held = self.0.lock_until(&object, call, until).await;
        held.map_err(|Busy(holder)| {
            Status::aborted(format!(
                "{object}: {holder} is still under way; call {call} again"
            ))
        })
    }
}
