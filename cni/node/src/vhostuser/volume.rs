//! The directory of a pod's sockets, in a volume that the pod itself writes.
//!
//! Nothing that lies there is believed: every component is opened below the one before it, and a symbolic link or a file in the way
//! is refused by the kernel (openat2(2): RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS), not by a look that could be overtaken.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use cni_bin::code;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fchmod, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

use super::settings::Args;
use super::socket::{Socket, Volume};
use crate::attachment::Pod;
use crate::error::Error;

/// Of the directory that the sockets are in.
const MODE: Mode = Mode::from_bits_truncate(0o770);
/// A rename somewhere in the tree makes the kernel give up (EAGAIN): that is no reason to fail at once.
const ATTEMPTS: usize = 16;

/// What tells a directory from all others of this boot.
pub(super) type Identity = (u64, u64);

/// The pod's volume: the one that is asked for, or the first that it has.
///
/// # Errors
/// It has none; or its path is not what kubelet makes.
pub(super) fn of_pod(
    args: &Args,
    pod: &Pod,
    asked: Option<Volume>,
) -> Result<(Volume, OwnedFd), Error> {
    let wanted: &[Volume] = match &asked {
        Some(volume) => std::slice::from_ref(volume),
        None => &Volume::ALL,
    };
    for volume in wanted {
        if let Some(opened) = open(args, pod, *volume)? {
            return Ok((*volume, opened));
        }
    }
    let names: Vec<_> = wanted.iter().map(|volume| volume.name()).collect();
    Err(Error::new(
        code::REFUSED,
        format!(
            "Pod {pod} has no volume {}: there is no place for its vhost-user socket.",
            names.join(" or ")
        ),
        "A virtual machine's pod has hook-sidecar-sockets when the interface says `binding: {name: vhostuser}` and KubeVirt knows \
         that binding with its sidecarImage; give any other pod an emptyDir named shared-dir, mounted at /var/lib/cni/usrcni.",
    ))
}

/// A pod's volume; none if it has not got it.
fn open(args: &Args, pod: &Pod, volume: Volume) -> Result<Option<OwnedFd>, Error> {
    super::socket::check_uid(&pod.uid)?;
    let root = &args.kubelet_root;
    let no_root = |why: Errno| {
        Error::new(
            code::IO_FAILURE,
            format!(
                "The volumes of pods cannot be looked at: {}: {}.",
                root.display(),
                why.desc()
            ),
            "Mount kubelet's root directory into cni-node's pod at the same path, with mountPropagation HostToContainer, and name it \
             with --kubelet-root if it is not /var/lib/kubelet.",
        )
    };
    let flags = OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC;
    let top = nix::fcntl::open(root, flags, Mode::empty()).map_err(no_root)?;
    beneath(&top, Path::new("pods")).map_err(no_root)?;
    let path = volume.on_host(&pod.uid);
    match beneath(&top, &path) {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::ENOENT) => Ok(None),
        Err(why) => Err(refused(pod, &root.join(path), why)),
    }
}

/// The sockets' directory of a volume, made if it is not there, with its owner and mode.
///
/// # Errors
/// Something else has its name; a link counts as something else.
pub(super) fn directory(
    args: &Args,
    pod: &Pod,
    volume: Volume,
    top: OwnedFd,
) -> Result<OwnedFd, Error> {
    let mut here = top;
    let mut path = args.kubelet_root.join(volume.on_host(&pod.uid));
    for name in volume.directories() {
        path.push(name);
        let failed = |why| refused(pod, &path, why);
        match mkdirat(&here, *name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(why) => return Err(failed(why)),
        }
        here = beneath(&here, Path::new(name)).map_err(failed)?;
        let (owner, group) = (Uid::from_raw(args.vhost_uid), Gid::from_raw(args.vhost_gid));
        fchown(&here, Some(owner), Some(group)).map_err(failed)?;
        fchmod(&here, MODE).map_err(failed)?;
    }
    Ok(here)
}

/// Makes way for a new socket: one that an earlier sandbox of the pod has left goes. Its containers have not started yet.
///
/// # Errors
/// Something that is no socket has its name.
pub(super) fn clear(directory: &OwnedFd, pod: &Pod, socket: &Socket) -> Result<(), Error> {
    let file = socket.file.as_str();
    let failed = |why: Errno| {
        Error::new(
            code::IO_FAILURE,
            format!(
                "Pod {pod}: {} cannot be looked at: {}.",
                socket.container_path,
                why.desc()
            ),
            "Look at the kernel's log and at the privileges of cni-node's pod.",
        )
    };
    let found = match fstatat(directory, file, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => found,
        Err(Errno::ENOENT) => return Ok(()),
        Err(why) => return Err(failed(why)),
    };
    let kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
    if kind != SFlag::S_IFSOCK {
        let what = match kind {
            SFlag::S_IFLNK => "a symbolic link",
            SFlag::S_IFDIR => "a directory",
            SFlag::S_IFREG => "a file",
            _ => "something that is no socket",
        };
        return Err(in_the_way(
            pod,
            &format!(
                "{} in volume {}",
                socket.container_path,
                socket.volume.name()
            ),
            what,
        ));
    }
    match unlinkat(directory, file, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(why) => Err(failed(why)),
    }
}

/// The sockets' directory of a record, if it is there; nothing is made.
pub(super) fn existing(args: &Args, pod: &Pod, volume: Volume) -> Option<Identity> {
    let mut here = open(args, pod, volume).ok()??;
    for name in volume.directories() {
        here = beneath(&here, Path::new(name)).ok()?;
    }
    identity(&here).ok()
}

/// What tells a directory from all others.
pub(super) fn identity(directory: impl AsFd) -> io::Result<Identity> {
    let seen = nix::sys::stat::fstat(directory)?;
    Ok((seen.st_dev, seen.st_ino))
}

fn beneath(top: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
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

fn refused(pod: &Pod, path: &Path, why: Errno) -> Error {
    let path = path.display().to_string();
    match why {
        Errno::ELOOP => in_the_way(pod, &path, "a symbolic link"),
        Errno::ENOTDIR => in_the_way(pod, &path, "no directory"),
        Errno::ENOSYS => Error::new(
            code::REFUSED,
            format!("Pod {pod}: {path} cannot be opened safely: this kernel has no openat2."),
            "vhost-user interfaces need Linux 5.10 or later.",
        ),
        why => Error::new(
            code::IO_FAILURE,
            format!("Pod {pod}: {path} cannot be used: {}.", why.desc()),
            "Look at the kernel's log, at the room in kubelet's file system and at the privileges of cni-node's pod.",
        ),
    }
}

fn in_the_way(pod: &Pod, path: &str, what: &str) -> Error {
    Error::new(
        code::REFUSED,
        format!(
            "Pod {pod}: {path} is {what}, where the directory of its vhost-user socket or the socket itself is to be."
        ),
        "Only somebody who writes that volume can have put it there: find out who, and recreate the pod.",
    )
}

#[cfg(test)]
mod tests;
