//! The thin edge of plans: one step after the other.

use std::collections::BTreeSet;
use std::sync::Arc;

use fail::fail_point;
use futures::stream::{self, StreamExt};
use uuid::Uuid;

use super::recipe::daemon_id;
use super::{Inner, deadline, failed, soon};
use crate::catalogue::Held;
use crate::error::{Error, Result};
use crate::state::{FileId, Step, VolumeRecord};

/// Runs what blocks on the disk where that disturbs nobody.
pub(crate) async fn blocking<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl Inner {
    /// New files, kept from the sweep while the operation lasts.
    pub(crate) fn new_files(&self, number: usize) -> (Vec<FileId>, Held) {
        let files: Vec<_> = (0..number).map(|_| FileId::new()).collect();
        let held = self.catalogue.hold(files.clone());
        (files, held)
    }

    /// Carries out the steps for `object`. After an error what was done stays, and the sweep removes what nobody needs.
    pub(crate) async fn perform(&self, object: &str, steps: Vec<Step>) -> Result<()> {
        for step in steps {
            fail_point!("local::step");
            match &step {
                Step::Image(file) => self.make_image(object, *file).await?,
                Step::Converge(uuid) => self.converge(*uuid).await?,
                Step::Together(volumes) => self.together(volumes).await?,
                Step::Unlink(file) => self.unlink(object, *file).await?,
                Step::Volume(uuid, _) => {
                    self.is_sure(*uuid, false);
                    self.record(object, step.clone()).await?;
                }
                _ => self.record(object, step.clone()).await?,
            }
        }
        fail_point!("local::step");
        Ok(())
    }

    pub(crate) async fn record(&self, object: &str, step: Step) -> Result<()> {
        let catalogue = Arc::clone(&self.catalogue);
        let recorded = blocking(move || catalogue.record(&step)).await;
        recorded.map_err(|error| match &error {
            journal::Error::Io { path, source, .. } => failed(&object, path, source),
            _ => Error::Unavailable {
                object: object.to_owned(),
                why: error.to_string(),
            },
        })
    }

    /// Makes everything as recorded, after a start.
    pub(crate) async fn recover(&self) {
        let daemons = match self.engine.list(Some(&self.owner()), soon()).await {
            Ok(daemons) => daemons,
            Err(why) => {
                tracing::warn!(%why, "no engine: volumes are looked at when they are used");
                return;
            }
        };
        let mut running: BTreeSet<_> = daemons.into_iter().map(|daemon| daemon.id).collect();
        let volumes: Vec<(Uuid, bool)> = {
            let state = self.catalogue.state();
            let served = |(uuid, volume): (&Uuid, &VolumeRecord)| {
                (
                    *uuid,
                    running.remove(&daemon_id(*uuid)) || !volume.exports.is_empty(),
                )
            };
            state.volumes.iter().map(served).collect()
        };
        if !running.is_empty() && !self.catalogue.is_whole() {
            // Each bad record has been logged.
            tracing::warn!(daemons = ?running, "kept: their volumes may be among those whose records could not be read");
            running.clear();
        }
        for id in running {
            tracing::info!(daemon = id, "daemon of a volume that is no more: removed");
            if let Err(why) = self.engine.remove(&id, deadline()).await {
                tracing::warn!(daemon = id, %why, "it can't be removed");
            }
        }
        // Some at a time: each is a few commands to a daemon of its own.
        let all = stream::iter(volumes).for_each_concurrent(16, |(uuid, served)| async move {
            let done = if served {
                self.settle(uuid).await
            } else {
                self.grow_image(uuid).await.map(|()| self.is_sure(uuid, true))
            };
            if let Err(why) = done {
                tracing::warn!(volume = %uuid, %why, "not as recorded; tried again when it is used");
            }
        });
        all.await;
    }
}
