//! Waiting for a change, until a deadline.

use tokio::sync::watch;
use tokio::time::Instant;

/// Waits for the next change; `false` when the deadline comes first or nothing can change any more.
pub(crate) async fn change<T>(changed: &mut watch::Receiver<T>, deadline: Instant) -> bool {
    tokio::time::timeout_at(deadline, changed.changed())
        .await
        .is_ok_and(|change| change.is_ok())
}
