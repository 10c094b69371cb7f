//! Is a disk that is in use still one?

use std::time::Duration;

use nix::libc;

use super::super::blocking::blocking;
use super::super::error::Error;
use super::open::{answer, claim, node, open, read_direct};
use super::sysfs::{Numbers, Sysfs};

/// How long a disk may take to answer. One that reconnects (NBD, NVMe-oF) is silent, not dead.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// It answers.
    Alive {
        /// Its size.
        bytes: u64,
    },
    /// It will not answer again: why.
    Dead(String),
    /// It does not answer now: why.
    Silent(String),
}

/// Reads the disk with these numbers, past all caches.
pub(crate) async fn health(sysfs: &Sysfs, numbers: Numbers) -> Health {
    let Some(name) = sysfs.name(numbers) else {
        return Health::Dead(format!("the disk {numbers} is gone"));
    };
    let sysfs = sysfs.clone();
    let silent = format!("/dev/{name} does not answer for {} s", PATIENCE.as_secs());
    let look = blocking("reading a disk", move || Ok(look(&sysfs, &name, numbers)));
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(Ok(health)) => health,
        Ok(Err(error)) => Health::Silent(error.to_string()),
        Err(_) => Health::Silent(silent),
    }
}

fn look(sysfs: &Sysfs, name: &str, numbers: Numbers) -> Health {
    let path = node(name);
    let path = path.display();
    let Some(bytes) = sysfs.bytes(name) else {
        return Health::Dead(format!("{path} is gone"));
    };
    if bytes == 0 {
        return Health::Dead(format!("{path} has size 0: what was behind it has ended"));
    }
    let read = open(name, numbers, libc::O_DIRECT)
        .map_err(|error| error.to_string())
        .and_then(|file| {
            read_direct(&file, 0, 512).map_err(|error| format!("{path} can't be read: {error}"))?;
            answer(sysfs, name, &file).map_err(|error| format!("{path} can't be flushed: {error}"))
        });
    match read {
        Ok(()) => Health::Alive { bytes },
        Err(why) => Health::Dead(why),
    }
}

/// Whether somebody has the disk for himself: a mounted file system in any namespace, device mapper, swap. What the disk still had
/// to write is written. May block.
pub(crate) fn claimed(sysfs: &Sysfs, numbers: Numbers) -> Result<bool, Error> {
    let Some(name) = sysfs.name(numbers) else {
        return Ok(false);
    };
    let path = node(&name);
    let Some(path) = path.to_str() else {
        return Ok(false);
    };
    open(&name, numbers, 0)?;
    let failed = |step: &str, error: std::io::Error| {
        Error::Unavailable(format!("{path}: can't {step}: {error}; repeat"))
    };
    let Some(claim) = claim(path).map_err(|error| failed("open it", error))? else {
        return Ok(true);
    };
    claim
        .sync_all()
        .map_err(|error| failed("write its cache to the volume", error))?;
    Ok(false)
}
