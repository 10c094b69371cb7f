//! One call at a time for each object. A second one waits a moment, then is told to come again (CSI specification,
//! "ABORTED").

use daemon::keyed::{self, Held};
use proto::deadline::Deadline;
use tonic::Status;

use crate::status::Answer;

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
        let held = self.0.lock_for(&object, call, deadline.end()).await;
        held.map_err(|busy| Status::aborted(busy.to_string()))
    }
}
