//! The set itself: what is on disk, in memory.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::file::{Dir, Error};
use crate::key;

const FORMAT: u32 = 1;
/// Writers of different keys wait for each other only by chance.
const STRIPES: usize = 16;

/// When a record was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// Under the kernel that runs now.
    This,
    /// Before the last reboot; what it describes in the kernel is gone.
    Earlier {
        /// The boot id of then.
        boot_id: String,
    },
}

/// A value with its provenance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<T> {
    /// When it was written last.
    pub boot: Boot,
    /// The value.
    pub value: T,
}

/// A file that was set aside when the journal was opened, this time or earlier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Where it is now.
    pub path: PathBuf,
    /// One sentence: which file, why, and what to do.
    pub sentence: String,
}

/// A durable set of `T` by key; see the crate's documentation.
#[derive(Debug)]
pub struct Journal<T> {
    dir: Dir,
    boot_id: String,
    records: Mutex<BTreeMap<String, Arc<Record<T>>>>,
    stripes: [Mutex<()>; STRIPES],
    hasher: RandomState,
    quarantined: Vec<Quarantined>,
}

#[derive(Serialize, Deserialize)]
struct Stored<K, T> {
    format: u32,
    key: K,
    boot_id: K,
    value: T,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// Opens the journal in `dir`, which is made when it is missing, and reads every record. `boot_id` is the running
    /// kernel's ([`crate::boot_id`]). Files that are not records of this type are set aside, not refused: one bad file
    /// must not keep a node from working. But one that the system does not let be read now may be a good one: that is an error.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] and [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>, boot_id: impl Into<String>) -> Result<Self, Error> {
        let dir = Dir::open(dir.as_ref())?;
        let boot_id = boot_id.into();
        let mut records = BTreeMap::new();
        // What an earlier start could not read is as unknown to this one.
        let earlier = dir.aside()?.into_iter().map(|path| {
            let sentence = format!(
                "a journal record could not be read by an earlier start, which set it aside as {}: look at it, then delete it",
                path.display()
            );
            Quarantined { path, sentence }
        });
        let mut quarantined: Vec<_> = earlier.collect();
        for name in dir.names()? {
            if !key::is_record(&name) {
                continue;
            }
            match dir
                .read(&name)?
                .and_then(|bytes| decode::<T>(&bytes, &name))
            {
                Ok(stored) => {
                    let boot = if stored.boot_id == boot_id {
                        Boot::This
                    } else {
                        Boot::Earlier {
                            boot_id: stored.boot_id,
                        }
                    };
                    let value = stored.value;
                    records.insert(stored.key, Arc::new(Record { boot, value }));
                }
                Err(why) => {
                    let path = dir.set_aside(&name)?;
                    let sentence = format!(
                        "journal record {} {why}; it is set aside as {}: look at it, then delete it",
                        dir.path(&name).display(),
                        path.display()
                    );
                    quarantined.push(Quarantined { path, sentence });
                }
            }
        }
        for Quarantined { sentence, .. } in &quarantined {
            tracing::warn!("{sentence}");
        }
        Ok(Self {
            dir,
            boot_id,
            records: Mutex::new(records),
            stripes: Default::default(),
            hasher: RandomState::new(),
            quarantined,
        })
    }

    /// Adds a record. It is durable when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`], and what writing may bring; then nothing has changed.
    pub fn insert(&self, key: &str, value: T) -> Result<Arc<Record<T>>, Error> {
        let _writing = self.writing(key);
        if self.get(key).is_some() {
            return Err(Error::Exists { key: key.into() });
        }
        self.write(key, value)
    }

    /// Replaces a record, which is of this boot then. It is durable when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Absent`], and what writing may bring; then nothing has changed.
    pub fn update(&self, key: &str, value: T) -> Result<Arc<Record<T>>, Error> {
        let _writing = self.writing(key);
        if self.get(key).is_none() {
            return Err(Error::Absent { key: key.into() });
        }
        self.write(key, value)
    }

    /// Removes a record and returns it; `None` if there is none, which is no error. It is gone for good when this
    /// returns.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; the record is then still there.
    pub fn remove(&self, key: &str) -> Result<Option<Arc<Record<T>>>, Error> {
        let _writing = self.writing(key);
        let Some(there) = self.get(key) else {
            return Ok(None);
        };
        let before = || self.encode(key, &there).map(Some);
        self.dir.remove(&file_name(key)?, before)?;
        Ok(locked(&self.records).remove(key))
    }

    fn write(&self, key: &str, value: T) -> Result<Arc<Record<T>>, Error> {
        let boot = Boot::This;
        let record = Arc::new(Record { boot, value });
        let bytes = self.encode(key, &record)?;
        let before = || {
            let there = self.get(key);
            there.map(|there| self.encode(key, &there)).transpose()
        };
        self.dir.replace(&file_name(key)?, &bytes, before)?;
        locked(&self.records).insert(key.into(), Arc::clone(&record));
        Ok(record)
    }

    /// The bytes of a record's file.
    fn encode(&self, key: &str, record: &Record<T>) -> Result<Vec<u8>, Error> {
        let boot_id = match &record.boot {
            Boot::This => &self.boot_id,
            Boot::Earlier { boot_id } => boot_id,
        };
        let stored = Stored {
            format: FORMAT,
            key,
            boot_id: boot_id.as_str(),
            value: &record.value,
        };
        serde_json::to_vec_pretty(&stored).map_err(|source| Error::Encode {
            key: key.into(),
            source,
        })
    }
}

impl<T> Journal<T> {
    /// The record of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Arc<Record<T>>> {
        locked(&self.records).get(key).cloned()
    }

    /// All records as they are now, by key. Changes made meanwhile are not seen.
    pub fn iter(&self) -> impl Iterator<Item = (String, Arc<Record<T>>)> + use<T> {
        let records = locked(&self.records).clone();
        records.into_iter()
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        locked(&self.records).len()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was set aside when the journal was opened, this time or earlier, and is still there. Each has been logged as a warning.
    #[must_use]
    pub fn quarantined(&self) -> &[Quarantined] {
        &self.quarantined
    }

    /// Keeps memory and disk in the same order for one key; the set itself is not held while the disk works.
    fn writing(&self, key: &str) -> MutexGuard<'_, ()> {
        let stripe = self.hasher.hash_one(key) % STRIPES as u64;
        locked(&self.stripes[stripe as usize])
    }
}

/// No code under these locks leaves a half-made change when it panics.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn file_name(key: &str) -> Result<String, Error> {
    key::to_file_name(key).ok_or_else(|| Error::Key { key: key.into() })
}

fn decode<T: DeserializeOwned>(bytes: &[u8], name: &str) -> Result<Stored<String, T>, String> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_slice(bytes)
        .map_err(|error| format!("is not a journal record ({error})"))?;
    if format != FORMAT {
        return Err(format!(
            "has format {format}, this program knows {FORMAT} (written by a newer one?)"
        ));
    }
    let stored: Stored<String, T> =
        serde_json::from_slice(bytes).map_err(|error| format!("can't be decoded ({error})"))?;
    if key::to_file_name(&stored.key).as_deref() != Some(name) {
        return Err(format!("says that it is the record of {:?}", stored.key));
    }
    Ok(stored)
}
