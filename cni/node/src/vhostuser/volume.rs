//! The directory of a pod's sockets, in a volume that the pod itself writes.
//!
//! Nothing that lies there is believed: [`podvolume`] opens and makes the directories.

use std::os::fd::OwnedFd;

use cni_bin::code;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
pub(super) use podvolume::{Identity, identity};
use podvolume::{Owner, Pods, Refusal};

use super::settings::Args;
use super::socket::{Socket, Volume};
use crate::attachment::Pod;
use crate::error::Error;

/// Of the directory that the sockets are in.
const MODE: u32 = 0o770;

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
    let opened = Pods::new(&args.kubelet_root).open(&pod.uid, volume.name());
    opened.map_err(|why| refused(pod, &why))
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
    let path = Pods::new(&args.kubelet_root).empty_dir(&pod.uid, volume.name());
    let owner = Owner {
        uid: args.vhost_uid,
        gid: args.vhost_gid,
        mode: MODE,
    };
    podvolume::make(top, &path, volume.directories(), owner).map_err(|why| refused(pod, &why))
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
    let top = open(args, pod, volume).ok()??;
    let path = Pods::new(&args.kubelet_root).empty_dir(&pod.uid, volume.name());
    let found = podvolume::descend(top, &path, volume.directories());
    identity(&found.ok()??).ok()
}

fn refused(pod: &Pod, why: &podvolume::Error) -> Error {
    let path = why.path.display().to_string();
    match why.refusal {
        Refusal::Root(why) => Error::new(
            code::IO_FAILURE,
            format!(
                "The volumes of pods cannot be looked at: {path}: {}.",
                why.desc()
            ),
            "Mount kubelet's root directory into cni-node's pod at the same path, with mountPropagation HostToContainer, and name it \
             with --kubelet-root if it is not /var/lib/kubelet.",
        ),
        Refusal::Link => in_the_way(pod, &path, "a symbolic link"),
        Refusal::NotDirectory => in_the_way(pod, &path, "no directory"),
        Refusal::OldKernel => Error::new(
            code::REFUSED,
            format!("Pod {pod}: {path} cannot be opened safely: this kernel has no openat2."),
            "vhost-user interfaces need Linux 5.10 or later.",
        ),
        Refusal::Io(why) => Error::new(
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
