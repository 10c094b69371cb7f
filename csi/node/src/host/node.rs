//! What every call needs, and what several ask.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use daemon::keyed::Locks;
use nix::errno::Errno;
use uuid::Uuid;

use super::blocking::blocking;
use super::device::{self, Health, Numbers, Sysfs};
use super::error::Error;
use super::filesystem::Tickets;
use super::mounts::{self, Place, Table};
use super::repair::Agent;
use super::request::Volume;
use super::socket::Late;

/// The file in the staging directory over which a raw disk is bound.
const DISK: &str = "device";

/// This node.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its id for CSI.
    pub(crate) name: String,
    /// How many volumes it takes; 0: not known.
    pub(crate) max_volumes: i64,
    /// Where its card puts the files of loop devices.
    pub(crate) exports: PathBuf,
    /// Kubelet's root directory: the volumes of pods are below it.
    pub(crate) kubelet_root: PathBuf,
    /// A directory for mounts that exist for a moment.
    pub(crate) on_the_way: PathBuf,
    /// The kernel's disks.
    pub(crate) sysfs: Sysfs,
    /// Who repairs disks.
    pub(crate) agent: Agent,
    /// Volumes whose dead mount was taken away, of which csi-node-dpu does not know yet that the disk is in use anew.
    pub(crate) replaced: Mutex<HashSet<Uuid>>,
    /// What is being formatted.
    pub(crate) tickets: Tickets,
    /// Sockets that wait for a pod's volume.
    pub(crate) late: Late,
    /// Which volumes are being worked on.
    pub(crate) locks: Locks,
}

/// Where a raw disk is staged.
pub(crate) fn staged_disk(staging: &Path) -> PathBuf {
    staging.join(DISK)
}

impl Node {
    /// What is mounted at a volume's path, be it where it is staged or where it is published.
    pub(crate) fn place(&self, path: &Path) -> Result<Option<Place>, Error> {
        let table = Table::read()?;
        let place = Place::at(&table, path);
        Ok(place.or_else(|| Place::at(&table, &staged_disk(path))))
    }

    /// The disk says that it is another volume.
    pub(crate) fn is_of_another(&self, disk: Numbers, volume: &Volume) -> bool {
        let says = self
            .sysfs
            .name(disk)
            .and_then(|name| device::uuid_of(&self.sysfs, &self.exports, &name));
        says.is_some() && says != volume.uuid
    }

    /// Whether what is mounted there works. An error: it does not answer, and nobody knows.
    pub(crate) async fn works(&self, place: &Place) -> Result<bool, Error> {
        let point = place.mount().point.clone();
        let Some(disk) = place.disk() else {
            return Err(Error::Exists(format!(
                "{}: something that is no volume ({}) is mounted there; unmount it",
                point.display(),
                place.mount().kind
            )));
        };
        match device::health(&self.sysfs, disk).await {
            Health::Alive { .. } => {}
            Health::Dead(why) => {
                tracing::warn!(path = %point.display(), "the mount is dead: {why}");
                return Ok(false);
            }
            Health::Silent(why) => {
                return Err(Error::Unavailable(format!(
                    "{}: {why}; repeat when the volume is well",
                    point.display()
                )));
            }
        }
        let Place::Filesystem(mount) = place else {
            return Ok(true);
        };
        if mount.gave_up() {
            tracing::warn!(path = %point.display(), "the file system became read-only after an error");
            return Ok(false);
        }
        blocking("reading a directory", move || Ok(answers(&point))).await
    }

    /// A disk's node is bound there, and its number went to another volume meanwhile: a bound node, unlike a mounted file system,
    /// does not keep its disk.
    pub(crate) fn is_stale(&self, place: &Place, volume: &Volume) -> bool {
        matches!(place, Place::Disk(_, disk) if self.is_of_another(*disk, volume))
    }

    /// Frees a path of the volume's of a mount that does not work.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when it does, and so is somebody's.
    pub(crate) async fn free_of_dead(
        &self,
        path: &Path,
        place: &Place,
        volume: &Volume,
    ) -> Result<(), Error> {
        if !self.is_stale(place, volume) && self.works(place).await? {
            let what = match place {
                Place::Disk(..) => "a raw disk",
                _ => "a file system",
            };
            return Err(Error::Exists(format!(
                "{}: {what} of another volume, or of another attachment, is mounted there; unpublish or \
                 unstage it first",
                path.display()
            )));
        }
        let point = path.to_owned();
        blocking("taking a dead mount away", move || mounts::detach(&point)).await?;
        tracing::warn!(path = %path.display(), "a dead mount was taken away");
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.extend(volume.uuid);
        Ok(())
    }

    /// Where else, in this namespace, what is at `place` is mounted.
    pub(crate) fn other_points(&self, place: &Place, but: &[&Path]) -> Result<Vec<PathBuf>, Error> {
        let table = Table::read()?;
        let same = |mount: &&mounts::Mount| match place {
            Place::Filesystem(of) => mount.device == of.device,
            Place::Disk(of, _) | Place::Foreign(of) => mount.same_source(of),
        };
        let mut points: Vec<PathBuf> = table
            .iter()
            .filter(same)
            .map(|mount| mount.point.clone())
            .filter(|point| !but.contains(&point.as_path()) && !point.starts_with(&self.on_the_way))
            .collect();
        points.dedup();
        Ok(points)
    }
}

/// A directory can be read. Errors of its disk are the ones that count.
fn answers(point: &Path) -> bool {
    let dead = [
        Errno::EIO,
        Errno::ENOTCONN,
        Errno::ESHUTDOWN,
        Errno::EUCLEAN,
        Errno::ENXIO,
    ];
    let read = std::fs::read_dir(point).and_then(|mut entries| entries.next().transpose());
    match read {
        Ok(_) => true,
        Err(error) => !error
            .raw_os_error()
            .is_some_and(|e| dead.contains(&Errno::from_raw(e))),
    }
}

/// Paths as a sentence lists them.
pub(crate) fn listed(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}
