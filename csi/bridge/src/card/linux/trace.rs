//! What only this machine knows of a volume, over restarts of the bridge: the daemon's life and the loop device.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use journal::{Boot, Journal};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::loops::Loop;
use crate::card::Result;

/// Key of the record that counts the losses of all volumes.
const CARD: &str = "card";

/// The record of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Trace {
    /// Of the daemon that held the volume last.
    epoch: Option<String>,
    /// The loop device over its export.
    device: Option<Loop>,
    /// How often a daemon was found to be another process; only in the card's own record.
    losses: u64,
}

/// All records.
#[derive(Debug)]
pub(crate) struct Traces {
    journal: Journal<Trace>,
    /// Lives of volumes that have no record yet, written with it: as long as nothing is exposed nobody can lose anything. Two tasks note
    /// the same volume.
    fresh: Mutex<BTreeMap<String, String>>,
}

impl Traces {
    pub(crate) fn open(dir: &Path, boot: &str) -> std::result::Result<Self, journal::Error> {
        Ok(Traces {
            journal: Journal::open(dir, boot)?,
            fresh: Mutex::default(),
        })
    }

    pub(crate) fn losses(&self) -> u64 {
        self.journal
            .get(CARD)
            .map_or(0, |record| record.value.losses)
    }

    /// The loop device that was made under this kernel.
    pub(crate) fn device(&self, uuid: Uuid) -> Option<Loop> {
        let record = self.journal.get(&uuid.to_string())?;
        (record.boot == Boot::This).then(|| record.value.device.clone())?
    }

    /// Notes what is exposed: the loop device, if there is one, under the process that holds the volume.
    pub(crate) fn set_device(&self, uuid: Uuid, device: Option<Loop>) -> Result<()> {
        let mut fresh = self.fresh();
        let key = uuid.to_string();
        let epoch = fresh.get(&key).cloned();
        self.write(&key, |trace| {
            trace.device = device;
            trace.epoch = epoch.or(trace.epoch.take());
        })?;
        fresh.remove(&key);
        Ok(())
    }

    /// Notes the process that holds the volume. True if it was another one before: then what that held is lost.
    pub(crate) fn life(&self, uuid: Uuid, epoch: &str) -> Result<bool> {
        let mut fresh = self.fresh();
        let key = uuid.to_string();
        let Some(known) = self.journal.get(&key) else {
            fresh.insert(key, epoch.to_owned());
            return Ok(false);
        };
        let known = known.value.epoch.clone();
        if known.as_deref() == Some(epoch) {
            return Ok(false);
        }
        let lost = known.is_some();
        if lost {
            self.write(CARD, |trace| trace.losses += 1)?;
        }
        self.write(&key, |trace| trace.epoch = Some(epoch.to_owned()))?;
        Ok(lost)
    }

    pub(crate) fn forget(&self, uuid: Uuid) -> Result<()> {
        let key = uuid.to_string();
        self.fresh().remove(&key);
        self.journal.remove(&key)?;
        Ok(())
    }

    /// No code under the lock can panic half-way.
    fn fresh(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, key: &str, change: impl FnOnce(&mut Trace)) -> Result<()> {
        let known = self.journal.get(key);
        let mut trace = known
            .as_ref()
            .map(|record| record.value.clone())
            .unwrap_or_default();
        change(&mut trace);
        match known {
            Some(record) if record.value == trace && record.boot == Boot::This => {}
            Some(_) => drop(self.journal.update(key, trace)?),
            None => drop(self.journal.insert(key, trace)?),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_counted_once_and_over_restarts() {
        let home = tempfile::tempdir().unwrap();
        let uuid = Uuid::from_u128(7);
        let traces = Traces::open(home.path(), "boot").unwrap();
        assert!(!traces.life(uuid, "z").unwrap());
        assert!(!traces.life(uuid, "a").unwrap(), "nobody had it");
        traces.set_device(uuid, None).unwrap();
        assert!(!traces.life(uuid, "a").unwrap());
        assert!(traces.life(uuid, "b").unwrap());
        drop(traces);
        let traces = Traces::open(home.path(), "boot").unwrap();
        assert!(!traces.life(uuid, "b").unwrap());
        assert_eq!(traces.losses(), 1);
        let device = Loop {
            name: "loop1".into(),
            back: "0:40".into(),
            life: None,
        };
        traces.set_device(uuid, Some(device.clone())).unwrap();
        assert_eq!(traces.device(uuid), Some(device));
        drop(traces);
        // After a boot the kernel's loops are others.
        assert_eq!(
            Traces::open(home.path(), "next").unwrap().device(uuid),
            None
        );
    }
}
