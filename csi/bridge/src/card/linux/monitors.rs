//! Connections to the daemons' monitors. A monitor has room for one client, which is this program; a call needs it several times, and
//! so do those that come right after it. A connection is kept until nobody has used it for a moment, and never longer than the process
//! on its other side lives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::Daemon;
use qemu::Qmp;
use tokio::time::Instant;

use crate::card::{Error, Result};

/// So long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(1);

/// The connections by the engine's id of the daemon. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Monitors(Arc<Mutex<HashMap<String, Arc<Slot>>>>);

/// One daemon's. Who connects holds it: a second client would wait for the first to go.
type Slot = tokio::sync::Mutex<Option<Held>>;

#[derive(Debug)]
struct Held {
    /// Of the process.
    epoch: Option<String>,
    qmp: Qmp,
    used: Instant,
}

impl Monitors {
    /// The connection to a daemon that runs. It is kept as long as a clone of it is.
    pub(super) async fn of(&self, daemon: &Daemon, deadline: Instant) -> Result<Qmp> {
        let slot = Arc::clone(self.slots().entry(daemon.id.clone()).or_default());
        let held = tokio::time::timeout_at(deadline, slot.lock());
        let mut held = held.await.map_err(|_| {
            Error::Away(format!(
                "daemon {}: its monitor does not answer in time; call again",
                daemon.id
            ))
        })?;
        if let Some(held) = held.as_mut()
            && held.epoch == daemon.epoch
            && held.qmp.is_open()
        {
            held.used = Instant::now();
            return Ok(held.qmp.clone());
        }
        // Before the next one is asked for: it may be the same process still.
        *held = None;
        let qmp = Qmp::connect(daemon.qmp_card(), deadline).await?;
        *held = Some(Held {
            epoch: daemon.epoch.clone(),
            qmp: qmp.clone(),
            used: Instant::now(),
        });
        drop(held);
        tokio::spawn(self.clone().let_go(daemon.id.clone(), slot));
        Ok(qmp)
    }

    /// Closes the connection of a slot when nobody has used it for a moment.
    async fn let_go(self, id: String, slot: Arc<Slot>) {
        let mut next = Instant::now() + IDLE;
        loop {
            tokio::time::sleep_until(next).await;
            let mut held = slot.lock().await;
            let Some(there) = held.as_ref() else { break };
            let now = Instant::now();
            next = there.used + IDLE;
            if next <= now && there.qmp.is_last() {
                *held = None;
                break;
            }
            next = next.max(now + IDLE / 4);
        }
        // The map's and ours: nobody is about to use it.
        let mut slots = self.slots();
        if slots
            .get(&id)
            .is_some_and(|there| Arc::ptr_eq(there, &slot) && Arc::strong_count(there) <= 2)
        {
            slots.remove(&id);
        }
    }

    /// No code under the lock can panic half-way.
    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Slot>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
