//! From whatever there is to nothing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use fail::fail_point;
use qemu::Qmp;
use qemu::commands::Quit;
use tokio::time::Instant;
use tracing::{Instrument, info_span};

use super::{Ask, Keeper, Phase};
use crate::fuse;
use crate::lock::Lock;
use crate::process::Process;
use crate::wire::{Refusal, State, code};

/// How long a daemon may take to end in an orderly way.
const ORDERLY: Duration = Duration::from_secs(5);
/// How long to wait before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

impl Keeper {
    pub(super) async fn remove(&mut self) -> Phase {
        let span = info_span!("remove", id = self.id);
        match self.clear().instrument(span).await {
            Ok(()) => {
                if self.record.is_some() {
                    tracing::info!(id = self.id, "storage daemon removed");
                    self.show(State::Stopped, None, None);
                    self.record = None;
                }
                for reply in self.removers.drain(..) {
                    // It is gone, whether or not somebody still waits.
                    let _ = reply.send(Ok(()));
                }
                Phase::Idle
            }
            Err(why) => {
                tracing::warn!(id = self.id, "storage daemon not removed: {why}");
                let refusal = Refusal {
                    code: code::UNAVAILABLE,
                    message: format!("daemon {} is not removed yet: {why}", self.id),
                };
                for reply in self.removers.drain(..) {
                    let _ = reply.send(Err(refusal.clone()));
                }
                self.rest(&refusal).await;
                Phase::Remove
            }
        }
    }

    async fn clear(&self) -> Result<(), String> {
        match Process::find(&self.place, &self.engine.boot) {
            Ok(Some(process)) => {
                if self.record.is_none() {
                    tracing::warn!(
                        id = self.id,
                        pid = process.pid,
                        "a storage daemon without a recipe is ended"
                    );
                }
                quit(&process, &self.place.qmp()).await;
            }
            Ok(None) => {}
            // Also whoever locks the file and does not look like a daemon of ours: it may be one, of an engine that was told another
            // path of the same directory.
            Err(why) => return Err(why.to_string()),
        }
        fail_point!("remove::ended");
        let (engine, id, place) = (
            Arc::clone(&self.engine),
            self.id.clone(),
            self.place.clone(),
        );
        let recipe = self.record.as_ref().map(|record| record.recipe.clone());
        let cleared = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
            if let Some(recipe) = &recipe {
                fuse::clear(recipe);
            }
            // A launcher of an earlier engine that is late finds the lock taken, or no directory.
            let lock = match Lock::take(&place) {
                Err(why) if why.kind() == io::ErrorKind::NotFound => None,
                taken => Some(taken?.context("its lock was taken meanwhile")?),
            };
            match std::fs::remove_dir_all(place.dir()) {
                Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why.into()),
                _ => drop(lock),
            }
            fail_point!("remove::cleared");
            engine.journal.remove(&id)?;
            Ok(())
        });
        let cleared = cleared.await.map_err(anyhow::Error::new).flatten();
        cleared.map_err(|why| format!("{why:#}"))
    }

    /// Waits before the next attempt.
    async fn rest(&mut self, refusal: &Refusal) {
        let until = Instant::now() + AGAIN;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                Some(ask) = self.asks.recv() => match ask {
                    Ask::Remove { reply } => self.removers.push(reply),
                    Ask::Put { reply, .. } => drop(reply.send(Err(refusal.clone()))),
                },
            }
        }
    }
}

/// Ends a daemon: in an orderly way if it can, else at once.
async fn quit(process: &Process, socket: &std::path::Path) {
    let deadline = Instant::now() + ORDERLY;
    let asked = async {
        let qmp = Qmp::connect(socket, deadline).await?;
        qmp.execute(&Quit {}, deadline).await
    };
    let ended = process.ended();
    tokio::pin!(ended);
    tokio::select! {
        asked = asked => match asked {
            // It may end before its answer is read.
            Ok(_) | Err(qemu::Error::UnknownOutcome { .. }) => {}
            Err(why) => tracing::warn!(pid = process.pid, "can't ask the storage daemon to end: {why}"),
        },
        _ = &mut ended => return,
    }
    if tokio::time::timeout_at(deadline, &mut ended).await.is_err() {
        tracing::warn!(
            pid = process.pid,
            "the storage daemon does not end: it is killed"
        );
        process.kill();
        ended.await;
    }
}
