//! The vhost-user-blk socket of a raw volume, in the pod of a virtual machine: a mount of the card's directory of the socket at
//! `outboard/blk/<claim>` of the pod's volume `hook-sidecar-sockets`. A pod without that volume has the block device alone.
//!
//! The mount is for reading alone, so that kubelet, which empties the pod's volume, cannot take the daemon's socket away (who connects
//! writes to the socket, not to the mount), and it follows no links. Nothing in the pod's volume is believed: directories are opened and
//! made by [`podvolume`]. What is mounted stands in mountinfo, and is known by what it shows, for the pod may move what is above it.
//! kubelet may make the pod's volume later than it publishes this one: [`late`].

mod late;

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use api::storage::{
    HOOK_DIRECTORIES, HOOK_VOLUME, publish_context, vhost_directory, vhost_path, volume_context,
};
use fail::fail_point;
use nix::fcntl::OFlag;
use nix::unistd::{UnlinkatFlags, unlinkat};
use podvolume::{Owner, Pods, Refusal};
use proto::csi::v1::NodePublishVolumeRequest;
use proto::deadline::Deadline;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

pub(crate) use late::{Late, follow};

use super::blocking::blocking;
use super::error::Error;
use super::mounts::{self, Mount, Table};
use super::node::Node;
use super::request::{Published, Volume};

/// So long NodePublishVolume waits for the pod's volume, which may be made just now: no container starts meanwhile. A pod that has none
/// starts later by that.
const LATER: Duration = Duration::from_secs(1);
/// Of the directories above the socket's: everybody may pass.
const OWNER: Owner = Owner {
    uid: 0,
    gid: 0,
    mode: 0o755,
};
/// The pod may move what is above a mount, just as it is taken away.
const ATTEMPTS: usize = 5;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    /// The volume.
    uuid: Uuid,
    /// Of the pod.
    pod: String,
    /// Of the volume.
    claim: String,
    /// The card's, with the socket in it.
    directory: PathBuf,
}

impl Wish {
    /// Of a request. `None`: the volume has no socket.
    pub(crate) fn new(
        request: &NodePublishVolumeRequest,
        published: &Published,
        exports: &Path,
    ) -> Result<Option<Self>, Error> {
        let Some(given) = request
            .publish_context
            .get(publish_context::VHOST_USER_SOCKET)
        else {
            return Ok(None);
        };
        let directory = exports.join(vhost_directory(published.uuid));
        if Path::new(given) != directory {
            return Err(Error::Refused(format!(
                "publish_context.{} is not {}, where this node's card has the volume's socket: it was published to another node, or \
                 --exports-dir is not the card's directory",
                publish_context::VHOST_USER_SOCKET,
                directory.display()
            )));
        }
        let field = format!("volume_context.{}", volume_context::CLAIM);
        let claim = request.volume_context.get(volume_context::CLAIM);
        let claim = claim.ok_or_else(|| {
            Error::Invalid(format!(
                "{field} is missing: the volume's socket is named after its claim"
            ))
        })?;
        vhost_path(claim).map_err(|why| Error::Refused(format!("{field}: {why}")))?;
        let pod = request.volume_context.get(volume_context::POD_UID).cloned();
        let pod = pod.or_else(|| pod_of(Path::new(&request.target_path)));
        let pod = pod.filter(|uid| Pods::is_uid(uid)).ok_or_else(|| {
            Error::Invalid(format!(
                "volume_context.{} is no UID of a pod: the CSIDriver must have podInfoOnMount",
                volume_context::POD_UID
            ))
        })?;
        Ok(Some(Self {
            uuid: published.uuid,
            pod,
            claim: claim.clone(),
            directory,
        }))
    }
}

/// kubelet publishes a raw volume at `…/publish/<volume>/<UID of the pod>`.
fn pod_of(target: &Path) -> Option<String> {
    let last = target.file_name()?.to_str()?;
    Pods::is_uid(last).then(|| last.to_owned())
}

/// Shows the socket in the pod if it has the volume for it, else as soon as it has. Repeated: no change. The volume is locked by the
/// caller.
pub(crate) async fn publish(node: &Node, wish: &Wish, deadline: Deadline) -> Result<(), Error> {
    let sockets = node.late.lock(wish.uuid).await;
    let opened = Pods::new(&node.kubelet_root).open(&wish.pod, HOOK_VOLUME);
    if let Some(opened) = opened.map_err(|why| refused(&why))? {
        place(node, wish, opened).await?;
        return node.late.forget(wish.uuid, Some(&wish.pod));
    }
    node.late.note(wish)?;
    fail_point!("socket::noted");
    drop(sockets);
    let until = deadline.last_start().min(Instant::now() + LATER);
    if !node.late.is_settled(wish, until).await {
        tracing::debug!(pod = wish.pod, "no volume {HOOK_VOLUME} yet: no socket");
    }
    Ok(())
}

/// Shows the socket in the pod's volume, which is open. The volume's sockets are the caller's.
async fn place(node: &Node, wish: &Wish, opened: OwnedFd) -> Result<(), Error> {
    fail_point!("socket::begun");
    let (root, wish, way) = (
        node.kubelet_root.clone(),
        wish.clone(),
        node.on_the_way.clone(),
    );
    blocking("showing a socket", move || show(&root, &wish, opened, &way)).await?;
    fail_point!("socket::bound");
    Ok(())
}

/// Takes the volume's sockets out of a pod (`target`: where the volume is published), or out of all. None there: fine. The pod need not
/// be there. The volume is locked by the caller.
pub(crate) async fn unpublish(
    node: &Node,
    volume: &Volume,
    target: Option<&Path>,
) -> Result<(), Error> {
    let Some(uuid) = volume.uuid else {
        return Ok(());
    };
    let pod = match target.map(pod_of) {
        Some(None) => return Ok(()),
        Some(pod) => pod,
        None => None,
    };
    let _sockets = node.late.lock(uuid).await;
    node.late.forget(uuid, pod.as_deref())?;
    fail_point!("socket::forgotten");
    let root = node.kubelet_root.clone();
    let gone = move || clear(&root, pod.as_deref(), uuid, |_| false);
    blocking("taking a socket away", gone).await?;
    fail_point!("socket::unmounted");
    Ok(())
}

fn show(root: &Path, wish: &Wish, opened: OwnedFd, way: &Path) -> Result<(), Error> {
    let there = |why: &dyn std::fmt::Display| {
        Error::Unavailable(format!(
            "{}: the directory of the volume's socket can't be opened ({why}): is --exports-dir mounted into csi-node-host's pod? repeat",
            wish.directory.display()
        ))
    };
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let source = fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(&wish.directory)
        .map_err(|why| there(&why))?;
    let wanted = podvolume::identity(&source).map_err(|why| there(&why))?;
    let volume = canonical(root).join(pods_volume(&wish.pod));
    let point = volume
        .join(HOOK_DIRECTORIES.iter().collect::<PathBuf>())
        .join(&wish.claim);
    let right = |mount: &Mount| {
        let same =
            fs::symlink_metadata(&mount.point).is_ok_and(|seen| (seen.dev(), seen.ino()) == wanted);
        mount.point == point && mount.read_only() && mount.has("nosymfollow") && same
    };
    if clear(root, Some(&wish.pod), wish.uuid, right)? {
        return Ok(());
    }
    let above =
        podvolume::make(opened, &volume, &HOOK_DIRECTORIES, OWNER).map_err(|why| refused(&why))?;
    let parent = point.parent().unwrap_or(&volume);
    let target =
        podvolume::make(above, parent, &[&wish.claim], OWNER).map_err(|why| refused(&why))?;
    fail_point!("socket::made");
    let way = way.join(format!("{}.{}", wish.uuid, wish.pod));
    fs::create_dir_all(&way).map_err(|why| {
        Error::Unavailable(format!("can't make {}: {why}; repeat", way.display()))
    })?;
    // The descriptors, not the paths: what was opened is what is mounted, and where.
    mounts::bind_guarded(&itself(&source), &itself(&target), &way)?;
    let _ = fs::remove_dir(&way);
    Ok(())
}

/// Takes the volume's sockets out of a pod, or of all pods, but one that `right` says is as it should be: whether there is one.
fn clear(
    root: &Path,
    pod: Option<&str>,
    uuid: Uuid,
    right: impl Fn(&Mount) -> bool,
) -> Result<bool, Error> {
    let root = canonical(root);
    let below = match pod {
        Some(pod) => root.join("pods").join(pod),
        None => root.join("pods"),
    };
    let mut attempts = ATTEMPTS;
    loop {
        attempts -= 1;
        let mut kept = false;
        let mut moved = None;
        // The last one made covers those before it.
        let table = Table::read()?;
        let mounts: Vec<_> = table.iter().cloned().collect();
        let ours = |mount: &&Mount| mount.point.starts_with(&below) && shows(&mount.root, uuid);
        for mount in mounts.iter().rev().filter(ours) {
            if !kept && right(mount) {
                kept = true;
            } else if let Err(why) = take_away(&root, mount) {
                moved = Some(why);
            }
        }
        match moved {
            None => return Ok(kept),
            Some(why) if attempts == 0 => return Err(why),
            Some(_) => {}
        }
    }
}

/// Whether that part of a file system is the directory of the volume's socket. The card may have taken it away.
fn shows(part: &Path, uuid: Uuid) -> bool {
    let part = part.to_string_lossy();
    let part = part.strip_suffix("//deleted").unwrap_or(&part);
    Path::new(part)
        .file_name()
        .is_some_and(|name| name == vhost_directory(uuid).as_str())
}

/// Unmounts exactly that mount, and removes the directory under it if nothing is in it. A path of the pod's could be another one by now:
/// it is opened without following a link, and what is open is compared.
fn take_away(root: &Path, mount: &Mount) -> Result<(), Error> {
    let elsewhere = || {
        Error::Unavailable(format!(
            "{} is moved by the pod while it is to be unmounted; repeat",
            mount.point.display()
        ))
    };
    let below = mount.point.strip_prefix(root).map_err(|_| elsewhere())?;
    let names: Option<Vec<&str>> = below
        .components()
        .map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    let names = names.ok_or_else(elsewhere)?;
    let open = |names: &[&str]| -> Result<OwnedFd, Error> {
        let top = File::open(root).map_err(|_| elsewhere())?;
        let found = podvolume::descend(top.into(), root, names).map_err(|why| refused(&why))?;
        found.ok_or_else(elsewhere)
    };
    let opened = open(&names)?;
    if mount_of(&opened) != Some(mount.id) {
        return Err(elsewhere());
    }
    mounts::detach_opened(&itself(&opened), &mount.point)?;
    if let Some((last, above)) = names.split_last()
        && let Ok(above) = open(above)
    {
        // What the pod put there is the pod's.
        let _ = unlinkat(&above, *last, UnlinkatFlags::RemoveDir);
    }
    Ok(())
}

/// proc_pid_fdinfo(5).
fn mount_of(opened: &OwnedFd) -> Option<u64> {
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", opened.as_raw_fd())).ok()?;
    let id = about.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    id?.trim().parse().ok()
}

fn itself(opened: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()))
}

/// As mountinfo spells it.
fn canonical(root: &Path) -> PathBuf {
    fs::canonicalize(root).unwrap_or_else(|_| root.to_owned())
}

/// Where the pod's volume is below kubelet's root.
fn pods_volume(pod: &str) -> PathBuf {
    Pods::new("").empty_dir(pod, HOOK_VOLUME)
}

fn refused(why: &podvolume::Error) -> Error {
    let path = why.path.display();
    let planted = |what: &str| {
        Error::Refused(format!(
            "{path} is {what}, where the directory of the volume's vhost-user-blk socket is to be: only somebody who writes that volume \
             can have put it there; find out who, and recreate the pod"
        ))
    };
    match why.refusal {
        Refusal::Link => planted("a symbolic link"),
        Refusal::NotDirectory => planted("no directory"),
        Refusal::Root(errno) => Error::Refused(format!(
            "{path}: the volumes of pods can't be looked at ({}): mount kubelet's root directory into csi-node-host's pod, and name it with \
             --kubelet-root if it is not /var/lib/kubelet",
            errno.desc()
        )),
        Refusal::OldKernel => Error::Refused(format!(
            "{path} can't be opened safely: this kernel has no openat2; vhost-user-blk sockets need Linux 5.10"
        )),
        Refusal::Io(errno) => {
            Error::Unavailable(format!("{path} can't be used: {}; repeat", errno.desc()))
        }
    }
}

#[cfg(test)]
mod tests;
