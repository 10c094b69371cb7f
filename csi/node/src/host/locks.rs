//! One call at a time per volume. A second one waits a moment, then is told to come again (CSI specification, "ABORTED").

use std::time::Duration;

use daemon::keyed::{self, Busy, Held};
use proto::deadline::Deadline;
use tokio::time::Instant;

use super::error::Error;

/// How long a call waits for another one on the same volume.
const PATIENCE: Duration = Duration::from_secs(2);

/// Locks of volumes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Locks(keyed::Locks);

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
        let until = deadline.end().min(Instant::now() + PATIENCE);
        let held = self.0.lock_until(volume, call, until).await;
        held.map_err(|Busy(holder)| {
            Error::Busy(format!(
                "volume {volume}: {holder} is still under way; repeat {call} later"
            ))
        })
    }
}
