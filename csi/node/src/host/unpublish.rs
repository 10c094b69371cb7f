//! NodeUnpublishVolume: the path is unmounted and removed. What lies under a mount is never deleted.

use std::io;
use std::path::Path;

use fail::fail_point;

use super::blocking::blocking;
use super::error::Error;
use super::mounts::{self, Place, Table};
use super::node::Node;
use super::request::{self, Volume};
use super::socket;

/// NodeUnpublishVolume. The volume is locked by the caller.
pub(crate) async fn unpublish(node: &Node, volume: &Volume, target: &Path) -> Result<(), Error> {
    fail_point!("unpublish::begun");
    // First: kubelet does not call again for a path that is gone.
    socket::unpublish(node, volume, Some(target)).await?;
    let target = request::resolve(target);
    // Several, if a path was published over a dead mount.
    while let Some(place) = Place::at(&Table::read()?, &target) {
        take_off(node, volume, &place).await?;
    }
    fail_point!("unpublish::unmounted");
    blocking("removing a path", move || remove(&target)).await
}

/// Unmounts the top mount of a path, if it is the volume's.
pub(crate) async fn take_off(node: &Node, volume: &Volume, place: &Place) -> Result<(), Error> {
    let point = place.mount().point.clone();
    let Some(disk) = place.disk() else {
        return Err(Error::Refused(format!(
            "{}: what is mounted there ({}) is no volume of this driver; it is left alone",
            point.display(),
            place.mount().kind
        )));
    };
    let stale = node.is_stale(place, volume);
    if !stale && node.is_of_another(disk, volume) {
        return Err(Error::Refused(format!(
            "{}: what is mounted there is not volume {}; it is left alone. Give the path and the id of one \
             volume",
            point.display(),
            volume.id
        )));
    }
    let works = !stale && node.works(place).await?;
    blocking("unmounting", move || {
        if works {
            mounts::unmount(&point)
        } else {
            mounts::detach(&point)
        }
    })
    .await
}

/// Removes an empty directory or an empty file.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let removed = std::fs::symlink_metadata(path).and_then(|found| {
        if found.is_dir() {
            std::fs::remove_dir(path)
        } else if found.is_file() && found.len() == 0 {
            std::fs::remove_file(path)
        } else {
            Err(io::ErrorKind::DirectoryNotEmpty.into())
        }
    });
    match removed {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            Err(Error::Refused(format!(
                "{}: nothing is mounted there, and it is not empty: it is left alone; see what wrote to it",
                path.display()
            )))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Unavailable(format!(
            "can't remove {}: {error}; repeat",
            path.display()
        ))),
        _ => Ok(()),
    }
}
