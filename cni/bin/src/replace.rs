//! A file that is replaced as a whole, or left alone when it is already what it should be.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Temporary files older than this are leftovers of an installer that was killed.
const STALE: Duration = Duration::from_secs(600);

/// Why a file could not be put in place or removed.
#[derive(Debug)]
pub(crate) struct Error {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Error {
    /// A failure to do `step` with the running program's own file.
    pub(crate) fn own(step: &'static str, source: io::Error) -> Self {
        Self {
            step,
            path: "/proc/self/exe".into(),
            source,
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "can't {} {}: {}",
            self.step,
            self.path.display(),
            self.source
        )
    }
}

impl std::error::Error for Error {}

fn at<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error {
        step,
        path: path.to_owned(),
        source,
    }
}

/// Makes the file at `path` have these bytes and this mode; true if something changed.
///
/// A reader, or a runtime that executes it, sees the old file or the new one. The old one is not written to, so a
/// running plugin neither breaks nor makes this fail (`ETXTBSY`).
pub(crate) fn file(path: &Path, bytes: &[u8], mode: u32) -> Result<bool, Error> {
    let (dir, name) = split(path);
    std::fs::create_dir_all(dir).map_err(at("make", dir))?;
    if is_already(path, bytes, mode) {
        return Ok(false);
    }
    let prefix = format!(".{}.", name.to_string_lossy());
    remove_stale(dir, &prefix);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let unique = since.map_or(0, |since| since.as_nanos());
    let temporary = dir.join(format!("{prefix}{}-{unique}.tmp", std::process::id()));
    let done = write(&temporary, bytes, mode)
        .map_err(at("write", &temporary))
        .and_then(|()| std::fs::rename(&temporary, path).map_err(at("replace", path)));
    if done.is_err() {
        // The first error is the one to report.
        let _ = std::fs::remove_file(&temporary);
    }
    done?;
    sync(dir)?;
    Ok(true)
}

/// Removes the file at `path`; false if there is none.
pub(crate) fn removed(path: &Path) -> Result<bool, Error> {
    match std::fs::remove_file(path) {
        Ok(()) => sync(split(path).0).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at("remove", path)(error)),
    }
}

fn is_already(path: &Path, bytes: &[u8], mode: u32) -> bool {
    // Not through a symbolic link: what is in place must be a file of its own.
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return false;
    };
    metadata.is_file()
        && metadata.permissions().mode() & 0o7777 == mode
        && metadata.len() == bytes.len() as u64
        && std::fs::read(path).is_ok_and(|found| found == bytes)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    // The mode above is subject to the umask.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

fn remove_stale(dir: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let age = entry.metadata().and_then(|metadata| metadata.modified());
        let old = age.is_ok_and(|age| age.elapsed().is_ok_and(|age| age > STALE));
        if name.starts_with(prefix) && name.ends_with(".tmp") && old {
            // Tidying up must not fail an installation.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn sync(dir: &Path) -> Result<(), Error> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(at("sync", dir))
}

/// Paths here are always a directory joined with a file name.
fn split(path: &Path) -> (&Path, &std::ffi::OsStr) {
    (
        path.parent().unwrap_or(Path::new("/")),
        path.file_name().unwrap_or_default(),
    )
}
