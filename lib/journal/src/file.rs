//! The directory: files that are replaced as a whole, and what goes wrong with them.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{Flock, FlockArg};

/// Where unreadable files go, below the journal's directory.
const QUARANTINE: &str = "corrupt";
const LOCK: &str = ".lock";
const TEMPORARY: &str = ".tmp-";

/// Why a journal can't be opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `insert` of a key that is there.
    #[error("journal record {key:?} exists already")]
    Exists {
        /// The key.
        key: String,
    },
    /// `update` of a key that is not there.
    #[error("journal record {key:?} does not exist")]
    Absent {
        /// The key.
        key: String,
    },
    /// The key is empty, or longer than a file name can be.
    #[error("journal key {key:?} can't be a file name: it must have 1 to about 190 characters")]
    Key {
        /// The key.
        key: String,
    },
    /// The record can't be written as JSON.
    #[error("journal record {key:?} can't be encoded")]
    Encode {
        /// The key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Another process has the journal open.
    #[error("journal {}: another process has it open; end that one first", .path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refused. The record is as before, on disk and in memory.
    #[error("journal: can't {step} {}", .path.display())]
    Io {
        /// What was tried, as a verb.
        step: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { step, path, source }
    }
}

/// The journal's directory, locked against other processes while this lives.
#[derive(Debug)]
pub(crate) struct Dir {
    path: PathBuf,
    handle: File,
    next: AtomicU64,
    _lock: Flock<File>,
}

impl Dir {
    /// Opens `path`, makes it when it is missing, and removes what an interrupted write left.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(Error::io("make", path))?;
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(Error::io("open", &lock_path))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            if errno == nix::errno::Errno::EWOULDBLOCK {
                Error::Busy {
                    path: path.to_owned(),
                }
            } else {
                Error::io("lock", &lock_path)(errno.into())
            }
        })?;
        let dir = Self {
            path: path.to_owned(),
            handle: File::open(path).map_err(Error::io("open", path))?,
            next: AtomicU64::new(0),
            _lock: lock,
        };
        for name in dir.names()? {
            if name.starts_with(TEMPORARY) {
                let path = dir.path(&name);
                std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(dir)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The names of all files that are valid text; others can't be ours.
    pub(crate) fn names(&self) -> Result<Vec<String>, Error> {
        let entries = std::fs::read_dir(&self.path).map_err(Error::io("list", &self.path))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &self.path))?;
            names.extend(entry.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    /// The files that were set aside, now or earlier, and that nobody has taken away.
    pub(crate) fn aside(&self) -> Result<Vec<PathBuf>, Error> {
        let quarantine = self.path(QUARANTINE);
        let entries = match std::fs::read_dir(&quarantine) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io("list", &quarantine))?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(Error::io("list", &quarantine))?.path());
        }
        paths.sort();
        Ok(paths)
    }

    /// The bytes of a file; the inner error is the sentence's rest for what is no file.
    pub(crate) fn read(&self, name: &str) -> Result<Result<Vec<u8>, String>, Error> {
        let path = self.path(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Ok(bytes)),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                Ok(Err(format!("can't be read ({error})")))
            }
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// Puts `bytes` in place of the file `name`, durably and at once. Where that can't be made durable, what `before` gives is put there
    /// again (or nothing, as it was).
    pub(crate) fn replace(
        &self,
        name: &str,
        bytes: &[u8],
        before: impl FnOnce() -> Result<Option<Vec<u8>>, Error>,
    ) -> Result<(), Error> {
        self.put(name, bytes)?;
        self.sync().inspect_err(|_| self.undo(name, before))
    }

    /// Removes the file `name`, durably; `before` gives what is in it, as for [`Self::replace`].
    pub(crate) fn remove(
        &self,
        name: &str,
        before: impl FnOnce() -> Result<Option<Vec<u8>>, Error>,
    ) -> Result<(), Error> {
        let path = self.path(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", &path)(error))
            }
            _ => self.sync().inspect_err(|_| self.undo(name, before)),
        }
    }

    /// What is told of a change that failed has to be so: the next start reads the directory.
    fn undo(&self, name: &str, before: impl FnOnce() -> Result<Option<Vec<u8>>, Error>) {
        let path = self.path(name);
        let undone = before().and_then(|before| match before {
            Some(bytes) => self.put(name, &bytes),
            None => std::fs::remove_file(&path).map_err(Error::io("remove", &path)),
        });
        if let Err(why) = undone {
            tracing::error!(
                "journal record {} is not as it was before a change that failed: {why}",
                path.display()
            );
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path(&format!("{TEMPORARY}{number}-{name}"));
        let write = || {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        let path = self.path(name);
        let done = write()
            .map_err(Error::io("write", &temporary))
            .and_then(|()| std::fs::rename(&temporary, &path).map_err(Error::io("replace", &path)));
        if done.is_err() {
            // The first error is the one to report; the next open removes the rest.
            let _ = std::fs::remove_file(&temporary);
        }
        done
    }

    /// Moves the file `name` out of the way and returns where it is now. Nothing set aside before is overwritten.
    pub(crate) fn set_aside(&self, name: &str) -> Result<PathBuf, Error> {
        let quarantine = self.path(QUARANTINE);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&quarantine)
            .map_err(Error::io("make", &quarantine))?;
        let mut target = quarantine.join(name);
        let mut number = 1u32;
        while target.exists() {
            target = quarantine.join(format!("{name}.{number}"));
            number += 1;
        }
        let path = self.path(name);
        std::fs::rename(&path, &target).map_err(Error::io("set aside", &path))?;
        self.sync()?;
        Ok(target)
    }

    fn sync(&self) -> Result<(), Error> {
        self.handle
            .sync_all()
            .map_err(Error::io("sync", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_cannot_be_made_durable_is_none() {
        let temporary = tempfile::tempdir().unwrap();
        let mut dir = Dir::open(temporary.path()).unwrap();
        let old = || Ok(Some(b"1".to_vec()));
        dir.replace("old", b"1", || Ok(None)).unwrap();
        // fsync(2): EINVAL for a file that has no such thing.
        dir.handle = File::open("/dev/null").unwrap();
        let there = |name: &str| std::fs::read(temporary.path().join(name)).ok();
        for refused in [
            dir.replace("new", b"2", || Ok(None)),
            dir.replace("old", b"2", old),
            dir.remove("old", old),
        ] {
            assert!(matches!(refused, Err(Error::Io { step: "sync", .. })));
        }
        assert_eq!(there("new"), None);
        assert_eq!(there("old"), Some(b"1".to_vec()));
    }
}
