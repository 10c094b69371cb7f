//! Certificates that were renewed while volumes are exported.
//!
//! A daemon's server shows what it was started with. Where other files lie there the recipe changes, and the server is started again:
//! its clients connect again, which is a pause for them, and then see, and are seen by, the new ones.

use std::path::PathBuf;
use std::sync::PoisonError;

use uuid::Uuid;

use super::perform::blocking;
use super::recipe::{self, credentials, daemon_id, tls_dir};
use super::{Inner, soon};

impl Inner {
    /// Lets the daemons show what lies there now.
    pub(crate) async fn renew(&self) {
        let Some(dir) = tls_dir(&self.config).map(PathBuf::from) else {
            return;
        };
        let now = blocking(move || recipe::tls_id(&dir)).await;
        if *self.shown.lock().unwrap_or_else(PoisonError::into_inner) == now {
            return;
        }
        let Ok(daemons) = self.engine.list(Some(&self.owner()), soon()).await else {
            return;
        };
        let mut all = true;
        for daemon in daemons {
            let step = credentials(daemon.recipe.steps());
            if step.is_none_or(|step| step.object() == Some(&now)) {
                continue;
            }
            let volumes: Vec<Uuid> = self.catalogue.state().volumes.keys().copied().collect();
            let uuid = volumes
                .into_iter()
                .find(|uuid| daemon_id(*uuid) == daemon.id);
            let Some(uuid) = uuid else { continue };
            let Some(_locked) = self.locks.try_lock([uuid]) else {
                all = false;
                continue;
            };
            match self.converge(uuid).await {
                Ok(()) => {
                    tracing::info!(volume = %uuid, "its server shows the certificate that lies there now");
                }
                Err(why) => {
                    all = false;
                    tracing::warn!(volume = %uuid, %why, "its server shows an old certificate; tried again");
                }
            }
        }
        if all {
            *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
    }
}
