//! Loop devices over FUSE exports: one per export, found by `backing_file` in sysfs.
//!
//! A loop whose daemon died stays behind with a dead backing file: its reads fail, and once the dead mount was taken away sysfs calls
//! its file `/` and nobody can say which mount it was. It is told from a living one by the device number of the mount, which a new
//! mount does not share while the old one is held, and found again by its number among all that the kernel's disks have held.
//!
//! A loop holds the mount that its file was opened through, and sysfs calls the file `/` as well when that mount goes with its mount
//! namespace, as this container's copy does at each restart. So a loop is made over the daemon's own mount, which lives as long as
//! the export.

use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, StatxFlags};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::losetup::{self, back};
use crate::card::{Error, Result};

const SYS: &str = "/sys/block";
const O_EXCL: i32 = 0o200;
const EBUSY: i32 = 16;
/// Nothing tells when a descriptor is closed: who still has a device after so many looks, so far apart, uses it.
const LOOKS: usize = 4;
const MOMENT: Duration = Duration::from_millis(50);
/// A loop device and the mount that it was made over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Loop {
    /// `loop7`.
    pub(crate) name: String,
    /// Device number of its backing file, `major:minor`.
    pub(crate) back: String,
    /// `diskseq`, which changes whenever a file is attached or detached. Not in records of older releases.
    #[serde(default)]
    pub(crate) life: Option<u64>,
}

impl Loop {
    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    fn new(name: &str, back: &str) -> Self {
        Loop {
            name: name.to_owned(),
            back: back.to_owned(),
            life: life(name),
        }
    }

    /// Both are the same life of the same device.
    fn is(&self, other: &Self) -> bool {
        let alive = match (self.life, other.life) {
            (Some(this), Some(that)) => this == that,
            _ => self.back == other.back,
        };
        self.name == other.name && alive
    }

    /// Whether the kernel's device of this name still is this one.
    async fn is_there(&self, file: &Path, deadline: Instant) -> Result<bool> {
        let Some(backing) = backing_file(&self.name) else {
            return Ok(false);
        };
        if self.life.is_some() {
            return Ok(life(&self.name) == self.life);
        }
        let ours = backing == file.to_string_lossy() || backing == "/";
        Ok(ours && back(&self.name, deadline).await?.as_deref() == Some(&*self.back))
    }

    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        let sectors = std::fs::read_to_string(format!("{SYS}/{}/size", self.name));
        sectors
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
            .unwrap_or(0)
            * 512
    }

    /// Whether somebody has it open, or mounted, or a device on it, and keeps it. Opens it exclusively for a moment, as whoever lists
    /// loops or looks for file systems opens each for a moment: that is no use.
    pub(crate) async fn in_use(&self) -> bool {
        for _ in 1..LOOKS {
            if !self.is_held().await {
                return false;
            }
            tokio::time::sleep(MOMENT).await;
        }
        self.is_held().await
    }

    async fn is_held(&self) -> bool {
        let path = self.path();
        let looking = tokio::task::spawn_blocking(move || {
            let opened = std::fs::OpenOptions::new()
                .read(true)
                .custom_flags(O_EXCL)
                .open(&path);
            opened.is_err_and(|why| why.raw_os_error() == Some(EBUSY)) || is_open(&path)
        });
        looking.await.unwrap_or(true)
    }
}

/// Whether a process has the device open, this one excepted.
pub(crate) fn is_open(path: &Path) -> bool {
    let Ok(device) = std::fs::metadata(path).map(|about| about.rdev()) else {
        return false;
    };
    let us = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.bytes().all(|b| b.is_ascii_digit()) && *name != *us
    });
    let mut files = numbers.flat_map(|process| {
        std::fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten()
    });
    files.any(|file| {
        std::fs::metadata(file.path()).is_ok_and(|about| about.rdev() == device && device != 0)
    })
}

/// Whether a device is mounted, as this process and the first one see it.
pub(crate) fn is_mounted(name: &str) -> bool {
    let Ok(number) = std::fs::read_to_string(format!("{SYS}/{name}/dev")) else {
        return false;
    };
    ["/proc/1/mountinfo", "/proc/self/mountinfo"]
        .iter()
        .any(|table| {
            let table = std::fs::read_to_string(table).unwrap_or_default();
            table
                .lines()
                .any(|line| line.split(' ').nth(2) == Some(number.trim()))
        })
}

/// The loops over `file`, by sysfs.
fn over(file: &Path) -> Vec<String> {
    let file = file.to_string_lossy();
    let entries = std::fs::read_dir(SYS).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<_> = names
        .filter(|name| name.starts_with("loop") && backing_file(name).is_some_and(|f| f == *file))
        .collect();
    found.sort();
    found
}

fn backing_file(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("{SYS}/{name}/loop/backing_file")).ok()?;
    Some(text.trim_end_matches('\n').to_owned())
}

fn life(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("{SYS}/{name}/diskseq")).ok()?;
    text.trim().parse().ok()
}

async fn device_number(file: &Path) -> Result<String> {
    let about = tokio::fs::metadata(file).await.map_err(|why| {
        Error::Away(format!("{}: can't be looked at ({why}); the volume's daemon is being started again: call again", file.display()))
    })?;
    let dev = about.dev();
    let (major, minor) = (dev >> 8 & 0xfff, dev & 0xff | dev >> 12 & 0xf_ff00);
    Ok(format!("{major}:{minor}"))
}

/// Exactly one loop over the living export `file` of the process `daemon`; `known` is the one that was made before. Others over it,
/// and a dead one, are taken away: who still has one of those open sees it end at his last close.
pub(crate) async fn ensure(
    file: &Path,
    daemon: u32,
    read_only: bool,
    known: Option<Loop>,
    deadline: Instant,
) -> Result<Loop> {
    let now = device_number(file).await?;
    let mut kept = None;
    for name in over(file) {
        if kept.is_none() && back(&name, deadline).await?.as_deref() == Some(&*now) {
            kept = Some(Loop::new(&name, &now));
        } else {
            detach(&name, deadline).await?;
        }
    }
    if let Some(known) = known
        && !kept.as_ref().is_some_and(|kept| kept.is(&known))
        && known.is_there(file, deadline).await?
    {
        detach(&known.name, deadline).await?;
    }
    if let Some(kept) = kept {
        return Ok(kept);
    }
    fail::fail_point!("loop::attaching");
    let name = losetup::attach(file, daemon, read_only, deadline).await?;
    fail::fail_point!("loop::attached");
    let name = name.trim().trim_start_matches("/dev/");
    Ok(Loop::new(name, &now))
}

/// No loop over `file`, nor the one made before.
pub(crate) async fn remove(file: &Path, known: Option<&Loop>, deadline: Instant) -> Result<()> {
    for name in over(file) {
        detach(&name, deadline).await?;
    }
    if let Some(known) = known
        && known.is_there(file, deadline).await?
    {
        detach(&known.name, deadline).await?;
    }
    Ok(())
}

/// The living loop over `file`, if there is one; `known`, which was made before, needs no process to be asked.
pub(crate) async fn find(file: &Path, known: Option<Loop>, deadline: Instant) -> Option<Loop> {
    let now = device_number(file).await.ok()?;
    if let Some(known) = known
        && known.life.is_some()
        && known.back == now
        && known.is_there(file, deadline).await.ok()?
    {
        return Some(known);
    }
    for name in over(file) {
        if back(&name, deadline).await.ok()?.as_deref() == Some(&*now) {
            return Some(Loop::new(&name, &now));
        }
    }
    None
}

/// Lets the loop see its file's size.
pub(crate) async fn grow(device: &Loop, file: &Path, deadline: Instant) -> Result<()> {
    let (path, file) = (device.path(), file.to_owned());
    // The kernel believes what it knows of a FUSE file for a second, and the loop believes the kernel.
    let fresh = tokio::task::spawn_blocking(move || {
        let (flags, mask) = (AtFlags::STATX_FORCE_SYNC, StatxFlags::SIZE);
        rustix::fs::statx(rustix::fs::CWD, &file, flags, mask).map(drop)
    });
    if let Ok(Err(why)) = fresh.await {
        tracing::debug!(
            device = device.name,
            "its file's size can't be read anew: {why}"
        );
    }
    losetup::run(&["--set-capacity", &path.to_string_lossy()], deadline)
        .await
        .map(drop)
}

async fn detach(name: &str, deadline: Instant) -> Result<()> {
    tracing::info!(device = name, "loop device is taken away");
    match losetup::run(&["--detach", &format!("/dev/{name}")], deadline).await {
        // Somebody else was quicker.
        Err(_) if backing_file(name).is_none() => Ok(()),
        other => other.map(drop),
    }
}
