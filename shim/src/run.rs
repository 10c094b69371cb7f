//! The process: a socket, the callbacks on it, an end.

use std::time::Duration;

use anyhow::Context;
use proto::uds;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::Config;
use crate::{launcher, server};

/// For calls that are under way when the end comes.
const GRACE: Duration = Duration::from_secs(2);

/// Serves until virt-launcher says that the VM has ended, or is gone without a word, or SIGTERM or SIGINT comes.
///
/// # Errors
///
/// The socket can't be made, or is lost.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen to SIGINT")?;
    let path = config.socket();
    let served_for = config.launcher_socket.clone();
    // Mode 0600: virt-launcher is root or the same user. A former container's socket is replaced.
    let listener = uds::bind(&path).await?;
    info!(op = "start", binding = config.binding, socket = %path.display(), "waiting for virt-launcher");
    let ended = CancellationToken::new();
    let serving = server::router(config, ended.clone())
        .serve_with_incoming_shutdown(uds::incoming(listener), ended.clone().cancelled_owned());
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => return served.context("serve the hook socket"),
        () = ended.cancelled() => info!(op = "Shutdown", "the VM has ended"),
        () = launcher::gone(&served_for) => info!(op = "stop", "virt-launcher is gone and has not said so"),
        _ = terminate.recv() => info!(op = "stop", "SIGTERM"),
        _ = interrupt.recv() => info!(op = "stop", "SIGINT"),
    }
    ended.cancel();
    match tokio::time::timeout(GRACE, serving).await {
        Ok(served) => served.context("serve the hook socket"),
        // Whoever still asks gets no answer: the VM is gone.
        Err(_) => Ok(()),
    }
}
