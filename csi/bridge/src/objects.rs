//! The objects as wanted, on disk: written before the card does anything, removed after it has undone everything.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use journal::{Journal, Quarantined};
use proto::volume::v1::Limits;
use serde::{Deserialize, Serialize};

use crate::card::{Error, Result};
use crate::resource::Resource;

/// An object's record. The message has no secrets: those are refused or never leave their files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stored {
    /// The message (protobuf, base64).
    message: String,
    /// Limits of `SetLimits`: iops, read, write, bytes, read, write.
    #[serde(default)]
    limits: [u64; 6],
    /// It is being taken away, by force or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deleting: Option<bool>,
}

/// An object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object<R> {
    pub(crate) wish: R,
    pub(crate) limits: Limits,
    pub(crate) deleting: Option<bool>,
}

/// All objects by name.
#[derive(Debug)]
pub(crate) struct Objects(Journal<Stored>);

impl Objects {
    pub(crate) fn open(dir: &Path, boot: &str) -> std::result::Result<Self, journal::Error> {
        Journal::open(dir, boot).map(Objects)
    }

    pub(crate) fn quarantined(&self) -> &[Quarantined] {
        self.0.quarantined()
    }

    pub(crate) fn get<R: Resource>(&self, name: &str) -> Option<Object<R>> {
        if collection(name) != Some(R::COLLECTION) {
            return None;
        }
        read(&self.0.get(name)?.value)
    }

    /// All of a kind, by name.
    pub(crate) fn all<R: Resource>(&self) -> Vec<Object<R>> {
        let records = self
            .0
            .iter()
            .filter(|(name, _)| collection(name) == Some(R::COLLECTION));
        records
            .filter_map(|(_, record)| read(&record.value))
            .collect()
    }

    /// Every name.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name).collect()
    }

    /// Whether an object is being taken away, by force or not.
    pub(crate) fn deleting(&self, name: &str) -> Option<bool> {
        self.0.get(name)?.value.deleting
    }

    pub(crate) fn is_there(&self, name: &str) -> bool {
        self.0.get(name).is_some()
    }

    pub(crate) fn write<R: Resource>(&self, wish: &R) -> Result<()> {
        let name = wish.name();
        let message = STANDARD.encode(wish.encode_to_vec());
        match self.0.get(name) {
            Some(record) => {
                let stored = Stored {
                    message,
                    ..record.value.clone()
                };
                self.0.update(name, stored)?;
            }
            None => {
                let stored = Stored {
                    message,
                    limits: [0; 6],
                    deleting: None,
                };
                self.0.insert(name, stored)?;
            }
        }
        Ok(())
    }

    pub(crate) fn set_limits(&self, name: &str, limits: &Limits) -> Result<Limits> {
        let l = limits;
        let limits = [
            l.iops,
            l.read_iops,
            l.write_iops,
            l.bytes,
            l.read_bytes,
            l.write_bytes,
        ];
        let before = self.change(name, |stored| Stored { limits, ..stored })?;
        Ok(from_array(before.limits))
    }

    pub(crate) fn set_deleting(&self, name: &str, deleting: Option<bool>) -> Result<()> {
        self.change(name, |stored| Stored { deleting, ..stored })
            .map(drop)
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.0.remove(name)?;
        Ok(())
    }

    fn change(&self, name: &str, change: impl FnOnce(Stored) -> Stored) -> Result<Stored> {
        let record = self
            .0
            .get(name)
            .ok_or_else(|| Error::NotFound(format!("there is no {name}")))?;
        let before = record.value.clone();
        self.0.update(name, change(before.clone()))?;
        Ok(before)
    }
}

fn from_array([iops, read_iops, write_iops, bytes, read_bytes, write_bytes]: [u64; 6]) -> Limits {
    Limits {
        iops,
        read_iops,
        write_iops,
        bytes,
        read_bytes,
        write_bytes,
    }
}

fn read<R: Resource>(stored: &Stored) -> Option<Object<R>> {
    let bytes = STANDARD.decode(&stored.message).ok()?;
    Some(Object {
        wish: R::decode(&*bytes).ok()?,
        limits: from_array(stored.limits),
        deleting: stored.deleting,
    })
}

/// The collection that a full name ends in.
pub(crate) fn collection(name: &str) -> Option<&str> {
    name.rsplit('/').nth(1)
}

/// The name of an object's parent.
pub(crate) fn parent(name: &str) -> Option<&str> {
    let (front, _) = name.rsplit_once('/')?;
    front.rsplit_once('/').map(|(parent, _)| parent)
}
