//! What is left over: files that nobody needs are removed, nameless ones between two others merged away.
//!
//! Runs in the background, one merge at a time, and gives way at once when an operation wants what it holds. A merge may be
//! cut off at any point: the contents are the same before, in between and after.
//!
//! A merge moves data up, into the image that is above the nameless one: by qemu-img where nobody has it open, by the daemon into the
//! image that takes its writes. QEMU can't do that to a volume that a card exposes as a file by its own daemon (FUSE), nor to a frozen
//! image that is in use. There data moves down, from one nameless image into the next: at most one then stays below each that has a
//! name, however long the volume is in use.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::Weak;
use std::time::Duration;

use fail::fail_point;
use qemu::Events;
use tokio::io::AsyncReadExt;
use uuid::Uuid;

use super::converge::{drop_unused, engine_error, object};
use super::images::image_error;
use super::monitor::Monitor;
use super::recipe::{daemon_id, file_node, image_path};
use super::{Inner, deadline, soon};
use crate::chain::Merge;
use crate::error::{Error, Result};
use crate::plan;
use crate::state::{FileId, State};

/// Merges that gave way, or failed, are tried again.
const AGAIN: Duration = Duration::from_secs(15);

pub(crate) async fn run(inner: Weak<Inner>) {
    loop {
        let Some(strong) = inner.upgrade() else {
            return;
        };
        strong.tidy().await;
        let _ = tokio::time::timeout(AGAIN, strong.untidy.notified()).await;
    }
}

impl Inner {
    pub(crate) async fn tidy(&self) {
        self.renew().await;
        if !self.catalogue.is_whole() {
            // Each bad record has been logged.
            return;
        }
        let _one = self.tidying.lock().await;
        let mut tried = BTreeSet::new();
        loop {
            if let Err(why) = self.sweep().await {
                tracing::warn!(%why, "files that nobody needs are left");
                return;
            }
            let next = {
                let state = self.catalogue.state();
                state
                    .merges(|uuid| is_busy(&state, uuid))
                    .into_iter()
                    .find(|merge| !tried.contains(&merge.gone))
            };
            let Some(merge) = next else { return };
            tried.insert(merge.gone);
            if let Err(why) = self.merge(&merge).await {
                tracing::warn!(child = %merge.child.0, gone = %merge.gone.0, %why, "not merged; tried again");
            }
        }
    }

    async fn sweep(&self) -> Result<()> {
        let steps = self.catalogue.state().sweep();
        self.perform("files that nobody needs", steps).await
    }

    async fn merge(&self, merge: &Merge) -> Result<()> {
        let keys: Vec<Uuid> = merge
            .volumes
            .iter()
            .chain(&merge.snapshots)
            .copied()
            .collect();
        let Some(locked) = self.locks.try_lock(&keys) else {
            return Ok(());
        };
        let onto = merge.onto.map(|file| image_path(&self.config, file));
        let served = merge
            .top_of
            .filter(|uuid| is_busy(&self.catalogue.state(), *uuid));
        // What was planned without locks may not be so any more.
        if !self.still(merge) {
            return Ok(());
        }
        let up = match served {
            Some(uuid) => !self.is_file(uuid).await?,
            None => merge.up,
        };
        let down = merge.down.filter(|_| !up);
        if !up && down.is_none() {
            return Ok(());
        }
        let Some(intent) = plan::merging(&self.catalogue.state(), merge) else {
            return Ok(());
        };
        self.perform("image to merge", vec![intent]).await?;
        let locked = match (down, served) {
            (Some(by), _) => {
                if !self.fold(by, merge, locked.wanted()).await? {
                    return Ok(());
                }
                locked
            }
            (None, None) => {
                let done = self
                    .rebase(merge.child, onto.as_deref(), locked.wanted())
                    .await?;
                if !done {
                    return Ok(());
                }
                locked
            }
            (None, Some(uuid)) => {
                self.ensure(uuid).await?;
                let (monitor, events) = self.stream(uuid, merge.child, onto.as_deref()).await?;
                // The daemon works by itself; operations on the volume go on, and stop it when they must.
                drop(locked);
                let over = monitor.end_merge(events).await;
                let done = match over {
                    Ok(()) => drop_unused(&monitor).await,
                    Err(why) => Err(why),
                };
                done.map_err(|why| unavailable(uuid, &why))?;
                let Some(locked) = self.locks.try_lock(&keys) else {
                    return Ok(());
                };
                locked
            }
        };
        fail_point!("local::merged");
        let done = self.rests_on(merge.child, onto.as_deref()).await? && self.still(merge);
        let record = plan::merged(&self.catalogue.state(), merge);
        if let Some(record) = record.filter(|_| done) {
            tracing::debug!(child = %merge.child.0, gone = %merge.gone.0, "merged");
            self.perform("merged image", vec![record]).await?;
        }
        drop(locked);
        Ok(())
    }

    /// Whether a card has a writable FUSE export of the volume's daemon. It may resize the disk, which block-stream does not
    /// share ("Permission conflict", QEMU 10.0).
    async fn is_file(&self, uuid: Uuid) -> Result<bool> {
        let daemon = self.engine.get(&daemon_id(uuid), soon()).await;
        let daemon = daemon.map_err(|why| engine_error(uuid, &why))?;
        let steps = daemon.iter().flat_map(|daemon| daemon.recipe.steps());
        let mut exports = steps.filter(|step| step.execute == "block-export-add");
        Ok(exports.any(|step| {
            step.arguments
                .get("type")
                .is_some_and(|kind| kind == "fuse")
                && step.arguments.get("writable").is_some_and(|is| is == true)
        }))
    }

    fn still(&self, merge: &Merge) -> bool {
        let state = self.catalogue.state();
        let same =
            |now: &Merge| (now.child, now.gone, now.onto) == (merge.child, merge.gone, merge.onto);
        let now = state.merges(|uuid| is_busy(&state, uuid));
        now.iter().any(|now| {
            same(now) && now.volumes == merge.volumes && now.snapshots == merge.snapshots
        })
    }

    /// Lets the daemon of `by` move what the nameless image has into the one below it. False if that was ended because of `wanted`:
    /// others may open these images then.
    async fn fold(
        &self,
        by: Uuid,
        merge: &Merge,
        wanted: impl Future<Output = ()>,
    ) -> Result<bool> {
        let Some(onto) = merge.onto.map(|file| image_path(&self.config, file)) else {
            return Ok(false);
        };
        if self.rests_on(merge.child, Some(&onto)).await? {
            // A predecessor's work, which it could not record.
            return Ok(true);
        }
        self.ensure(by).await?;
        let volume = self.catalogue.state().volumes.get(&by).cloned();
        let volume = volume.ok_or_else(|| Error::not_found(&object(by)))?;
        let daemon = self.put(by, &volume).await?;
        let gone = image_path(&self.config, merge.gone);
        let done = async {
            let monitor = self.monitor(by, &daemon).await?;
            let done = tokio::select! {
                folded = monitor.fold(&gone, &onto) => folded.map(|()| true),
                () = wanted => monitor.stop_merging().await.map(|()| false),
            }?;
            drop_unused(&monitor).await?;
            Ok(done)
        };
        done.await.map_err(|why| unavailable(by, &why))
    }

    /// Lets the daemon begin to move what the image gets from below, down to `onto`, into it.
    async fn stream(
        &self,
        uuid: Uuid,
        child: FileId,
        onto: Option<&Path>,
    ) -> Result<(Monitor, Events)> {
        let volume = self.catalogue.state().volumes.get(&uuid).cloned();
        let volume = volume.ok_or_else(|| Error::not_found(&object(uuid)))?;
        let daemon = self.put(uuid, &volume).await?;
        let started = async {
            let monitor = self.monitor(uuid, &daemon).await?;
            let events = monitor.start_merge(&file_node(child), onto).await?;
            Ok((monitor, events))
        };
        started.await.map_err(|why| unavailable(uuid, &why))
    }

    /// The same for an image that no daemon has: `qemu-img rebase`. False if it was ended because of `wanted`; it holds the
    /// image no more when this returns. Should this program die, it dies too.
    async fn rebase(
        &self,
        child: FileId,
        onto: Option<&Path>,
        wanted: impl Future<Output = ()>,
    ) -> Result<bool> {
        let path = image_path(&self.config, child);
        let mut command = tokio::process::Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-img", "rebase", "-q"]);
        // Else it writes the tables of what it has copied after the header (seen with 10.0.13), and killed in between, as by `wanted`, it
        // leaves an image that has lost the data.
        command.args(["-t", "writethrough"]);
        command.args(["-f", "qcow2", "-F", "qcow2", "-b"]);
        command.arg(onto.unwrap_or(Path::new(""))).arg(&path);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::piped()).kill_on_drop(true);
        let unavailable = |why: String| Error::Unavailable {
            object: format!("image {}", path.display()),
            why,
        };
        let cant = |why: std::io::Error| unavailable(format!("can't run setpriv qemu-img: {why}"));
        let mut running = command.spawn().map_err(cant)?;
        let stderr = running.stderr.take();
        let said = async {
            let mut said = Vec::new();
            if let Some(mut stderr) = stderr {
                // What can't be read is a sentence less.
                let _ = stderr.read_to_end(&mut said).await;
            }
            said
        };
        let ended = tokio::select! {
            ended = async { futures::join!(running.wait(), said) } => Some(ended),
            () = wanted => None,
        };
        let Some((status, said)) = ended else {
            running.kill().await.map_err(cant)?;
            return Ok(false);
        };
        if !status.map_err(cant)?.success() {
            return Err(unavailable(
                String::from_utf8_lossy(&said).trim().to_owned(),
            ));
        }
        let file = tokio::fs::File::open(&path).await;
        let synced = match file {
            Ok(file) => file.sync_all().await,
            Err(error) => Err(error),
        };
        synced.map_err(|why| unavailable(why.to_string()))?;
        Ok(true)
    }

    /// Whether the image's header says so.
    async fn rests_on(&self, child: FileId, onto: Option<&Path>) -> Result<bool> {
        let path = image_path(&self.config, child);
        let info = self.images.info(&path, true, deadline()).await;
        let info = info.map_err(|error| image_error("merged image", &error))?;
        Ok(info.full_backing_filename.as_deref() == onto)
    }
}

/// Whether the volume has a daemon.
fn is_busy(state: &State, uuid: Uuid) -> bool {
    let volume = state.volumes.get(&uuid);
    volume.is_some_and(|volume| !volume.exports.is_empty())
}

fn unavailable(uuid: Uuid, why: &qemu::Error) -> Error {
    Error::Unavailable {
        object: object(uuid),
        why: why.to_string(),
    }
}
