//! A note that a disk was found empty and is being formatted: what makes an mkfs that was cut off repeatable.
//!
//! Half a mkfs is neither empty nor a file system. It may be overwritten only while nobody else can have written to the
//! disk since it was seen empty: in the same boot, and in the same life of the disk in the kernel (`diskseq`), by a
//! program that mounts only after the note is gone. A note of another boot or another life counts for nothing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::super::device::{Device, Sysfs};
use super::super::error::Error;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The notes.
#[derive(Debug, Clone)]
pub(crate) struct Tickets {
    dir: PathBuf,
    boot: String,
    sysfs: Sysfs,
}

impl Tickets {
    /// In a directory of their own, which is made.
    pub(crate) fn open(dir: &Path, sysfs: Sysfs) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        let boot = fs::read_to_string(BOOT_ID)?.trim().to_owned();
        Ok(Self {
            dir: dir.to_owned(),
            boot,
            sysfs,
        })
    }

    /// There is one for the volume, and it is of this disk, in this life.
    pub(crate) fn has(&self, volume: Uuid, device: &Device) -> bool {
        let written = fs::read_to_string(self.path(volume)).ok();
        written.is_some() && written == self.text(device)
    }

    /// Writes one, durably.
    pub(super) fn write(&self, volume: Uuid, device: &Device) -> Result<(), Error> {
        // A kernel without `diskseq` gets none: what was cut off is then not repeated.
        let Some(text) = self.text(device) else {
            return Ok(());
        };
        self.put(volume, &text)
            .map_err(|error| self.failed("write", volume, &error))
    }

    /// Removes it.
    pub(crate) fn remove(&self, volume: Uuid) -> Result<(), Error> {
        match fs::remove_file(self.path(volume)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("remove", volume, &error))
            }
            _ => Ok(()),
        }
    }

    fn put(&self, volume: Uuid, text: &str) -> io::Result<()> {
        let path = self.path(volume);
        let new = path.with_extension("new");
        let mut file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(&self.dir)?.sync_all()
    }

    fn text(&self, device: &Device) -> Option<String> {
        let life = self.sysfs.attribute(&device.found.name, "diskseq")?;
        Some(format!("{} {life}\n", self.boot))
    }

    fn path(&self, volume: Uuid) -> PathBuf {
        self.dir.join(format!("formatting-{volume}"))
    }

    fn failed(&self, step: &str, volume: Uuid, error: &io::Error) -> Error {
        Error::Unavailable(format!(
            "can't {step} {}: {error}; give --run-dir a directory that can be written",
            self.path(volume).display()
        ))
    }
}
