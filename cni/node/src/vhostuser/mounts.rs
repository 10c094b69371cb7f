//! The short bind mounts through which Open vSwitch reaches pods' sockets.
//!
//! A volume's path has some 140 bytes, and 107 fit into a socket's address. The mounts are ours: found in /proc/self/mountinfo after
//! a crash, below a directory in which nobody else mounts. A mount follows no symbolic link (`nosymfollow`): the pod may put one in the
//! place of its socket at any time, and Open vSwitch, as root, would connect to whatever socket of the host it names.
//!
//! A flag that is set after the mount was made does not reach the host's copy of it (mount propagation carries mounts, not their
//! flags). So a mount is made in [`STAGING`], which is private, gets its flags there, and is bound from there to its place.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::volume::Identity;

/// No pod's UID begins with a dot.
const STAGING: &str = ".staging";
const STAGED: &str = ".staging/mount";
const MOUNTINFO: &str = "/proc/self/mountinfo";
/// mount(2), MS_NOSYMFOLLOW, Linux 5.10.
const NOSYMFOLLOW: MsFlags = MsFlags::from_bits_retain(1 << 8);
const GUARD: &str = "nosymfollow";

/// A step that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {path}")]
pub(super) struct MountError {
    step: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A mount of ours, or a directory that was made for one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// What is mounted; none = nothing.
    pub(super) directory: Option<Identity>,
    /// Whether it follows no links.
    pub(super) guarded: bool,
}

/// The directory of the mounts.
#[derive(Debug, Clone)]
pub(super) struct Mounts {
    directory: PathBuf,
}

impl Mounts {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The mounts that are there, and what was left of some, by name.
    pub(super) fn observe(&self) -> Result<BTreeMap<String, Seen>, MountError> {
        let mut seen = BTreeMap::new();
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(seen),
            Err(why) => return Err(failed("read", &self.directory, why)),
        };
        for entry in entries {
            let entry = entry.map_err(|why| failed("read", &self.directory, why))?;
            // What holds something and is not mounted is not ours.
            let empty = |path| fs::read_dir(path).is_ok_and(|mut inside| inside.next().is_none());
            if let Ok(name) = entry.file_name().into_string()
                && name != STAGING
                && empty(entry.path())
            {
                seen.insert(name, Seen::default());
            }
        }
        for point in self.points()? {
            let Ok(below) = point.path.strip_prefix(&self.directory) else {
                continue;
            };
            let name = below.display().to_string();
            if name.is_empty() || name == STAGING {
                continue;
            }
            // The last one covers those before it.
            let directory = fs::metadata(&point.path).ok();
            let mounted = Seen {
                directory: directory.map(|found| (found.dev(), found.ino())),
                guarded: point.guarded,
            };
            seen.insert(name, mounted);
        }
        Ok(seen)
    }

    /// Mounts a directory in the staging place, with its flags. One at a time.
    pub(super) fn stage(&self, directory: &OwnedFd) -> Result<(), MountError> {
        let staging = self.directory.join(STAGING);
        fs::create_dir_all(&staging).map_err(|why| failed("make", &staging, why))?;
        let points = self.points()?;
        if !points.iter().any(|point| point.path == staging) {
            bind(&staging, &staging)?;
        }
        let none = None::<&str>;
        mount(none, &staging, none, MsFlags::MS_PRIVATE, none)
            .map_err(|why| refused("make private", &staging, why))?;
        self.unstage()?;
        let staged = self.directory.join(STAGED);
        fs::create_dir_all(&staged).map_err(|why| failed("make", &staged, why))?;
        // The descriptor, not a path: what was opened is what is mounted.
        let source = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        bind(&source, &staged)?;
        let flags = MsFlags::MS_BIND
            | MsFlags::MS_REMOUNT
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV
            | MsFlags::MS_NOEXEC
            | NOSYMFOLLOW;
        mount(none, &staged, none, flags, none)
            .map_err(|why| refused("set nosymfollow (Linux 5.10) on", &staged, why))
    }

    /// Mounts what is staged at its place, instead of whatever is there.
    pub(super) fn publish(&self, name: &str) -> Result<(), MountError> {
        let place = self.directory.join(name);
        self.unmount(&place)?;
        fs::create_dir_all(&place).map_err(|why| failed("make", &place, why))?;
        bind(&self.directory.join(STAGED), &place)
    }

    /// Takes away what is staged; nothing is fine.
    pub(super) fn unstage(&self) -> Result<(), MountError> {
        self.unmount(&self.directory.join(STAGED))
    }

    /// Removes a mount and its directory; nothing is fine.
    pub(super) fn remove(&self, name: &str) -> Result<(), MountError> {
        let place = self.directory.join(name);
        self.unmount(&place)?;
        match fs::remove_dir(&place) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(failed("remove", &place, why)),
            _ => Ok(()),
        }
    }

    /// All that are mounted at that very place.
    fn unmount(&self, place: &Path) -> Result<(), MountError> {
        loop {
            // A pod's volume may be in use by Open vSwitch at this moment: the place is free at once, the rest follows.
            match umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                Ok(()) => {}
                Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
                Err(why) => return Err(refused("unmount", place, why)),
            }
        }
    }

    fn points(&self) -> Result<Vec<Point>, MountError> {
        let info = Path::new(MOUNTINFO);
        let text = fs::read(info).map_err(|why| failed("read", info, why))?;
        Ok(points(&text))
    }
}

fn bind(source: &Path, target: &Path) -> Result<(), MountError> {
    let none = None::<&str>;
    mount(Some(source), target, none, MsFlags::MS_BIND, none)
        .map_err(|why| refused("mount a pod's volume at", target, why))
}

fn refused(step: &'static str, path: &Path, why: Errno) -> MountError {
    failed(step, path, why.into())
}

fn failed(step: &'static str, path: &Path, source: io::Error) -> MountError {
    MountError {
        step,
        path: path.to_owned(),
        source,
    }
}

/// A line of mountinfo.
#[derive(Debug, PartialEq, Eq)]
struct Point {
    path: PathBuf,
    guarded: bool,
}

/// proc_pid_mountinfo(5): the fifth field is the mount point, the sixth its options.
fn points(text: &[u8]) -> Vec<Point> {
    let lines = text.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ').skip(4);
            let path = unescape(fields.next()?);
            let options = fields.next()?;
            Some(Point {
                path: PathBuf::from(std::ffi::OsString::from_vec(path)),
                guarded: options
                    .split(|byte| *byte == b',')
                    .any(|option| option == GUARD.as_bytes()),
            })
        })
        .collect()
}

/// Blanks and backslashes are three octal digits after a backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let value = digits.and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match value {
            Some(value) => {
                out.push(value);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
