//! Directories below one that is open.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{Gid, Uid, fchown};

use crate::Error;

/// A rename somewhere in the tree makes the kernel give up (EAGAIN): that is no reason to fail at once.
const ATTEMPTS: usize = 16;

/// What tells a directory from all others of this boot: device and inode.
pub type Identity = (u64, u64);

/// Whose a directory is made, and what its mode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// The last of the directories `names` below `top`, each in the one before it; whatever is missing is made, and all get their owner and
/// mode. `path` is where `top` is: errors name it.
///
/// # Errors
/// Something else has one of the names; a link counts as something else.
pub fn make(top: OwnedFd, path: &Path, names: &[&str], owner: Owner) -> Result<OwnedFd, Error> {
    let mut here = top;
    let mut path = path.to_owned();
    for name in names {
        path.push(name);
        let failed = |why| Error::at(&path, why);
        match mkdirat(&here, *name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(why) => return Err(failed(why)),
        }
        here = beneath(&here, Path::new(name)).map_err(failed)?;
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        fchown(&here, Some(uid), Some(gid)).map_err(failed)?;
        fchmod(&here, Mode::from_bits_truncate(owner.mode)).map_err(failed)?;
    }
    Ok(here)
}

/// The last of the directories `names` below `top`; nothing is made. None: there is no such directory.
///
/// # Errors
/// Something else has one of the names; a link counts as something else.
pub fn descend(top: OwnedFd, path: &Path, names: &[&str]) -> Result<Option<OwnedFd>, Error> {
    let mut here = top;
    let mut path = path.to_owned();
    for name in names {
        path.push(name);
        here = match beneath(&here, Path::new(name)) {
            Ok(opened) => opened,
            Err(Errno::ENOENT) => return Ok(None),
            Err(why) => return Err(Error::at(&path, why)),
        };
    }
    Ok(Some(here))
}

/// What tells a directory from all others.
///
/// # Errors
/// The file system's.
pub fn identity(directory: impl AsFd) -> io::Result<Identity> {
    let seen = nix::sys::stat::fstat(directory)?;
    Ok((seen.st_dev, seen.st_ino))
}

pub(crate) fn beneath(top: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let mut answer = openat2(top, path, how);
    for _ in 1..ATTEMPTS {
        if answer.as_ref().err() != Some(&Errno::EAGAIN) {
            break;
        }
        answer = openat2(top, path, how);
    }
    answer
}

#[cfg(test)]
mod tests;
