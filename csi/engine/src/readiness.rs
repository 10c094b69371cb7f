//! The checks of /readyz.

use std::path::Path;

use daemon::readiness::{Check, Readiness};
use journal::Quarantined;
use tokio::sync::mpsc;

/// Ready once every daemon of an earlier engine has been looked for.
pub(crate) async fn watch_recovery(check: Check, mut all_found: mpsc::Receiver<()>) {
    // Nothing is ever sent: it ends when the last sender is dropped.
    let _ = all_found.recv().await;
    check.ready();
}

/// Whether there is a storage daemon to be started.
pub(crate) fn storage_daemon(
    readiness: &Readiness,
    version: &Result<String, String>,
    program: &Path,
) {
    let check = readiness.check("storage-daemon", "not asked for its version yet");
    if let Ok(version) = version {
        tracing::info!(version, "storage daemon is {}", program.display());
    }
    check.set(version.as_ref().map(drop));
}

/// Whether every recipe could be read.
pub(crate) fn recipes(readiness: &Readiness, quarantined: &[Quarantined]) {
    let check = readiness.check("recipes", "not read yet");
    let sentences: Vec<_> = quarantined
        .iter()
        .map(|bad| bad.sentence.as_str())
        .collect();
    if sentences.is_empty() {
        check.ready();
    } else {
        check.not_ready(format!(
            "{}; until then no directory without a recipe is removed",
            sentences.join("; ")
        ));
    }
}
