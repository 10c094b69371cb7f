//! What the engine tells of the daemons.

use std::sync::{Arc, PoisonError};

use engine::{Change, Daemon, State};
use uuid::Uuid;

use super::{Linux, recipe};
use crate::card::Notice;

impl Linux {
    /// Watches the daemons; never ends.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut watch = self.engine.watch();
        loop {
            let daemons = match watch.next().await {
                Change::All(daemons) => daemons,
                Change::One(daemon) => vec![*daemon],
            };
            for daemon in daemons {
                if let Some(uuid) = self.volume_of(&daemon) {
                    self.seen(uuid, &daemon);
                }
            }
        }
    }

    fn volume_of(&self, daemon: &Daemon) -> Option<Uuid> {
        let guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        recipe::volume_of(&daemon.id).or_else(|| guests.get(&daemon.id).copied())
    }

    /// Notes the process that holds a volume, and tells whoever listens.
    pub(super) fn seen(&self, uuid: Uuid, daemon: &Daemon) {
        let notice = match (&daemon.state, &daemon.epoch) {
            (State::Running, Some(epoch)) => match self.traces.life(uuid, epoch) {
                Ok(true) => Notice::Lost(uuid),
                Ok(false) => return,
                Err(why) => {
                    tracing::warn!(%uuid, "the volume's record can't be written: {why}");
                    Notice::Lost(uuid)
                }
            },
            _ => Notice::Changed(uuid),
        };
        // Nobody may be listening.
        let _ = self.notices.send(notice);
    }
}
