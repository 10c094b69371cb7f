//! Which labs there are: `<base>/<id>/`, taken by making the directory; owned by a process, or kept.
//!
//! The base is `/var/tmp/outboard-lab` (`OUTBOARD_LAB_STATE` names another): outside what nodes overlay, on a disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::process;
use crate::sweep;

const BASE: &str = "/var/tmp/outboard-lab";

/// Ids that are handed out when none is asked for; the ones below are for people.
const AUTOMATIC: std::ops::RangeInclusive<u8> = 20..=250;

/// Where all labs of this machine keep their state.
pub(crate) fn base() -> PathBuf {
    std::env::var_os("OUTBOARD_LAB_STATE").map_or_else(|| PathBuf::from(BASE), PathBuf::from)
}

/// The state directory of lab `id`.
pub(crate) fn dir(id: u8) -> PathBuf {
    base().join(id.to_string())
}

/// Takes the id asked for, or a free one; sweeps away labs whose owner died.
///
/// # Errors
/// The id is taken by a living lab, or all are.
pub(crate) fn claim(wanted: Option<u8>) -> Result<(u8, PathBuf)> {
    let base = base();
    fs::create_dir_all(&base).with_context(|| format!("cannot make {}", base.display()))?;
    let _guard = lock(&base)?;
    for id in labs()? {
        if !in_use(id) {
            sweep::remove(id)?;
        }
    }
    let id = match wanted {
        Some(id) if dir(id).exists() => {
            bail!(
                "lab {id} is up already: `outboard-lab down --id {id}` ends it, another --id avoids it"
            )
        }
        Some(id) => id,
        None => AUTOMATIC
            .into_iter()
            .find(|id| !dir(*id).exists())
            .with_context(|| format!("all lab ids are taken: see {}", base.display()))?,
    };
    let dir = dir(id);
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let pid = i32::try_from(std::process::id()).context("a pid is positive")?;
    let start = process::start_time(pid).context("this process has a start time")?;
    fs::write(dir.join("owner"), format!("{pid} {start}"))?;
    Ok((id, dir))
}

/// The lab outlives this process: only `down` ends it.
pub(crate) fn keep(dir: &Path) -> Result<()> {
    fs::write(dir.join("kept"), "").with_context(|| format!("cannot write to {}", dir.display()))
}

/// Ids with a state directory.
pub(crate) fn labs() -> Result<Vec<u8>> {
    let Ok(entries) = fs::read_dir(base()) else {
        return Ok(Vec::new());
    };
    let mut ids: Vec<u8> = entries
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

fn in_use(id: u8) -> bool {
    let dir = dir(id);
    if dir.join("kept").exists() {
        return true;
    }
    let owner = fs::read_to_string(dir.join("owner")).unwrap_or_default();
    let mut fields = owner.split(' ');
    let pid = fields.next().and_then(|f| f.parse().ok());
    let start = fields.next().and_then(|f| f.parse().ok());
    pid.and_then(process::start_time)
        .is_some_and(|s| Some(s) == start)
}

/// One lab at a time is made or swept.
fn lock(base: &Path) -> Result<Flock<File>> {
    let file = File::create(base.join("lock"))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| anyhow::anyhow!("cannot lock {}: {errno}", base.display()))
}
