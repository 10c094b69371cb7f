//! A disk that is held open: while it is, its numbers are not given to another one.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use nix::libc;

use super::super::error::Error;
use super::super::request::Published;
use super::find::{Found, Miss, find};
use super::sysfs::{Numbers, Sysfs};
use super::taken::patiently;

/// Direct reads need memory and lengths in multiples of the disk's block.
const BLOCK: usize = 4096;

/// An open disk.
#[derive(Debug)]
pub(crate) struct Device {
    file: File,
    /// What it was found as.
    pub(crate) found: Found,
}

impl Device {
    /// Opens the disk that was found, then finds it again: what is open is what was looked for, or nothing. May block.
    pub(crate) fn open(sysfs: &Sysfs, found: &Found, wanted: &Published) -> Result<Self, Error> {
        let file = open(&found.name, found.numbers, 0)?;
        let bytes = (&file).seek(SeekFrom::End(0)).map_err(|error| {
            Error::Unavailable(format!(
                "{}: can't read its size: {error}; repeat",
                found.name
            ))
        })?;
        match find(sysfs, wanted) {
            Ok(again) if again == *found && again.bytes == bytes => {}
            Err(Miss::Refused(why)) => return Err(Error::Refused(why)),
            _ => {
                return Err(Error::Unavailable(format!(
                    "{}: the disk changed while it was opened; repeat",
                    found.name
                )));
            }
        }
        let device = Self {
            file,
            found: found.clone(),
        };
        // A disk whose export has died is still there, and found: nothing is done for its sake.
        let answered = device
            .read(0, BLOCK)
            .and_then(|_| answer(sysfs, &found.name, &device.file));
        answered.map_err(|error| {
            Error::Unavailable(format!(
                "{}: the disk of volume {} can't be read: {error}; repeat when the volume is well (see the log \
                 of volume-attacher)",
                node(&found.name).display(),
                wanted.uuid
            ))
        })?;
        Ok(device)
    }

    /// Its path, for the kernel's mount table and for people.
    pub(crate) fn path(&self) -> PathBuf {
        node(&self.found.name)
    }

    /// A path that leads other programs to this very disk, whatever lies in /dev by then.
    pub(crate) fn pinned(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Takes the disk from everybody else (mounts, device mapper, mkfs) until the answer is dropped. `None`: somebody has it.
    pub(crate) fn claim(&self) -> io::Result<Option<File>> {
        claim(&self.pinned())
    }

    /// Reads what is on the disk, past the cache.
    pub(crate) fn read(&self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let direct = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(self.pinned())?;
        read_direct(&direct, at, length)
    }
}

/// The first 4 KiB of the disk with these numbers, past the cache. May block.
pub(crate) fn head(name: &str, numbers: Numbers) -> Result<Vec<u8>, Error> {
    let file = open(name, numbers, libc::O_DIRECT)?;
    read_direct(&file, 0, BLOCK).map_err(|error| {
        let path = node(name);
        Error::Unavailable(format!(
            "{}: can't be read: {error}; repeat",
            path.display()
        ))
    })
}

/// The device node.
pub(super) fn node(name: &str) -> PathBuf {
    PathBuf::from("/dev").join(name)
}

/// Opens the block device for reading, if it has these numbers.
pub(super) fn open(name: &str, numbers: Numbers, flags: i32) -> Result<File, Error> {
    let path = node(name);
    let unavailable = |why: String| Error::Unavailable(format!("{}: {why}", path.display()));
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags | libc::O_NONBLOCK)
        .open(&path)
        .map_err(|error| {
            unavailable(format!(
                "can't open it: {error}; is the host's /dev visible to this program?"
            ))
        })?;
    let metadata = file
        .metadata()
        .map_err(|error| unavailable(format!("can't inspect it: {error}; repeat")))?;
    if metadata.file_type().is_block_device() && Numbers::of(metadata.rdev()) == numbers {
        Ok(file)
    } else {
        Err(unavailable(format!(
            "it is not the block device {numbers} that sysfs shows under this name; repeat"
        )))
    }
}

/// Opens a device for this program alone; `None`: somebody has it, and keeps it.
pub(super) fn claim(path: &str) -> io::Result<Option<File>> {
    let mut alone = OpenOptions::new();
    alone.read(true).custom_flags(libc::O_EXCL);
    let attempt = || match alone.open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(None),
        Err(error) => Err(error),
    };
    patiently(attempt, |claim| matches!(claim, Ok(None)))
}

/// Asks what is behind a disk for an answer, after a read of it. A loop device without direct I/O answers reads from the cache of its
/// file, which the death of what is behind leaves as it was; a flush it passes on. The first error may be an old one, of somebody's
/// write.
pub(super) fn answer(sysfs: &Sysfs, name: &str, disk: &File) -> io::Result<()> {
    match sysfs.attribute(name, "loop/dio").as_deref() {
        Some("0") => disk.sync_all().or_else(|_| disk.sync_all()),
        _ => Ok(()),
    }
}

/// Reads from a file that is open with `O_DIRECT`. `at` is a multiple of the block; a disk whose size is none ends with
/// a shorter read.
pub(super) fn read_direct(file: &File, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let rounded = length.next_multiple_of(BLOCK);
    let mut buffer = vec![0; rounded + BLOCK];
    let skip = buffer.as_ptr().align_offset(BLOCK);
    let mut done = 0;
    while done < length {
        let slice = &mut buffer[skip + done..skip + rounded];
        match file.read_at(slice, at + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(buffer[skip..skip + length].to_vec())
}
