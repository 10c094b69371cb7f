//! The lock that a daemon holds on a file of its directory from its first moment to its last.
//!
//! It is a POSIX record lock (fcntl(2)): the kernel keeps it across exec, drops it when the process ends however it ends,
//! and tells everybody who holds it. So it says at any time whether there is a daemon and which process it is, with no
//! file that could be out of date. Closing any descriptor of the file drops the holder's lock: nobody but the launcher
//! opens it in that process.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;

use crate::place::Place;

/// The lock file of a daemon, held by this process.
#[derive(Debug)]
pub(crate) struct Lock(File);

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

impl Lock {
    /// Takes the lock; `None` if another process has it. The directory must be there.
    pub(crate) fn take(place: &Place) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(place.lock())?;
        match fcntl(&file, FcntlArg::F_SETLK(&whole_file())) {
            Ok(_) => Ok(Some(Lock(file))),
            Err(Errno::EACCES | Errno::EAGAIN) => Ok(None),
            Err(why) => Err(why.into()),
        }
    }

    /// Lets a program that this process becomes by exec have the lock.
    pub(crate) fn keep_across_exec(&self) -> io::Result<()> {
        fcntl(&self.0, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(())
    }
}

/// Which process holds the lock; `None` if none does.
pub(crate) fn holder(place: &Place) -> io::Result<Option<i32>> {
    let file = match OpenOptions::new().write(true).open(place.lock()) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut lock = whole_file();
    fcntl(&file, FcntlArg::F_GETLK(&mut lock))?;
    Ok((i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid))
}
