//! The system calls. Each may block.

use std::path::Path;

use fail::fail_point;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::super::device::patiently;
use super::super::error::Error;
use super::super::filesystem::Kind;
use super::Flags;

const NONE: Option<&str> = None;
/// mount(2), MS_NOSYMFOLLOW, Linux 5.10.
const NOSYMFOLLOW: MsFlags = MsFlags::from_bits_retain(1 << 8);

/// How a file system is mounted.
#[derive(Debug, Clone)]
pub(crate) struct Mounting<'a> {
    /// Which.
    pub(crate) kind: Kind,
    /// As the user wants.
    pub(crate) flags: &'a Flags,
    /// For reading alone.
    pub(crate) read_only: bool,
    /// Not even its journal is written: other nodes may have it too, or the disk can't be written.
    pub(crate) unrecovered: bool,
}

/// Mounts a disk.
pub(crate) fn filesystem(disk: &Path, point: &Path, how: &Mounting<'_>) -> Result<(), Error> {
    let mut kernel = how.flags.kernel;
    kernel.set(MsFlags::MS_RDONLY, how.read_only);
    let mut data: Vec<&str> = how.flags.rest.iter().map(String::as_str).collect();
    if how.kind == Kind::Xfs && !data.contains(&"nouuid") {
        // A clone and its source have one UUID, and may be on one node.
        data.push("nouuid");
    }
    if how.unrecovered {
        data.push(match how.kind {
            Kind::Ext4 => "noload",
            Kind::Xfs => "norecovery",
        });
    }
    let data = data.join(",");
    let kind = how.kind;
    let attempt = || {
        mount(
            Some(disk),
            point,
            Some(kind.name()),
            kernel,
            Some(data.as_str()),
        )
    };
    patiently(attempt, |mounted| *mounted == Err(Errno::EBUSY)).map_err(|errno| {
        let what = format!("can't mount the {kind} of {} at {}", disk.display(), point.display());
        match errno {
            Errno::EINVAL => Error::Refused(format!(
                "{what}: the kernel does not take its mount options, or the file system; see the kernel's log \
                 on this node (`dmesg`), and mountOptions of the StorageClass"
            )),
            Errno::EACCES | Errno::EROFS => Error::Refused(format!(
                "{what}: the disk can only be read; mount it read-only"
            )),
            Errno::EUCLEAN | Errno::ENOTSUP => Error::Refused(format!(
                "{what}: {}; repair it by hand on this node, or restore a snapshot",
                errno.desc()
            )),
            Errno::EBUSY => Error::Unavailable(format!(
                "{what}: the disk is in use otherwise: by a program, or by workloads that still see a dead mount \
                 of it; end those"
            )),
            _ => Error::Unavailable(format!("{what}: {}; repeat", errno.desc())),
        }
    })
}

/// Shows at `target` what is at `source`.
pub(crate) fn bind(source: &Path, target: &Path) -> Result<(), Error> {
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)
        .map_err(|errno| failed("bind", source, target, errno))
}

/// The same, for reading alone from its first moment on: at `on_the_way`, which is left free again, it is made read-only first.
pub(crate) fn bind_read_only(source: &Path, target: &Path, on_the_way: &Path) -> Result<(), Error> {
    bind_with(source, target, on_the_way, MsFlags::MS_RDONLY)
}

/// The same for a directory in which there are sockets alone, and where nobody is led elsewhere by a link.
pub(crate) fn bind_guarded(source: &Path, target: &Path, on_the_way: &Path) -> Result<(), Error> {
    let flags = MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC
        | NOSYMFOLLOW;
    bind_with(source, target, on_the_way, flags)
}

fn bind_with(source: &Path, target: &Path, on_the_way: &Path, flags: MsFlags) -> Result<(), Error> {
    detach(on_the_way)?;
    bind(source, on_the_way)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags;
    let bound = mount(NONE, on_the_way, NONE, flags, NONE)
        .map_err(|errno| failed("make read-only", source, on_the_way, errno))
        .and_then(|()| {
            fail_point!("publish::halfway");
            // A bind of a read-only mount is born read-only. Flags that are set later would not reach the copies in other namespaces.
            bind(on_the_way, target)
        });
    detach(on_the_way)?;
    bound
}

fn failed(step: &str, source: &Path, target: &Path, errno: Errno) -> Error {
    let (source, target) = (source.display(), target.display());
    Error::Unavailable(format!(
        "can't {step} {source} at {target}: {}; repeat",
        errno.desc()
    ))
}

/// Unmounts the top mount at `point`. None there: fine.
pub(crate) fn unmount(point: &Path) -> Result<(), Error> {
    match umount2(point, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(Errno::EBUSY) => Err(Error::Refused(format!(
            "{} is in use: a program has files open in it, or something is mounted below it; end that \
             program (`fuser -vm {}` names it)",
            point.display(),
            point.display()
        ))),
        Err(errno) => Err(cant_unmount(point, errno)),
    }
}

/// Takes a dead mount (or one that nobody uses) away from `point`, whoever still looks at it. None there: fine.
pub(crate) fn detach(point: &Path) -> Result<(), Error> {
    match umount2(point, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(cant_unmount(point, errno)),
    }
}

/// The same for a mount that is open: `itself` leads to it through /proc. `point` is where it was.
pub(crate) fn detach_opened(itself: &Path, point: &Path) -> Result<(), Error> {
    umount2(itself, MntFlags::MNT_DETACH).map_err(|errno| cant_unmount(point, errno))
}

fn cant_unmount(point: &Path, errno: Errno) -> Error {
    Error::Unavailable(format!(
        "can't unmount {}: {}; repeat",
        point.display(),
        errno.desc()
    ))
}
