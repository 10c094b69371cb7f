//! NodeUnstageVolume: OK means that nothing on this node has the volume any more, so that its disk may be taken away. That is
//! looked at, not concluded.

use std::path::Path;
use std::time::Duration;

use fail::fail_point;
use proto::deadline::Deadline;
use tokio::time::Instant;

use super::blocking::blocking;
use super::device::{self, Health, Numbers};
use super::error::Error;
use super::mounts::{self, Place, Table};
use super::node::{Node, listed, staged_disk};
use super::request::{self, Volume};
use super::socket;
use super::unpublish::{remove, take_off};

/// The kernel may let go of a disk a moment after the unmount, and tells nobody.
const LETTING_GO: Duration = Duration::from_secs(2);
/// How often it is asked.
const ASK: Duration = Duration::from_millis(20);

/// NodeUnstageVolume. The volume is locked by the caller.
pub(crate) async fn unstage(
    node: &Node,
    volume: &Volume,
    staging: &Path,
    deadline: Deadline,
) -> Result<(), Error> {
    fail_point!("unstage::begun");
    let staging = request::resolve(staging);
    let raw = staged_disk(&staging);
    let mut disks = Vec::new();
    for point in [&raw, &staging] {
        while let Some(place) = Place::at(&Table::read()?, point) {
            if !node.is_stale(&place, volume) {
                nobody_else(node, volume, &place, point).await?;
                disks.extend(place.disk());
            }
            take_off(node, volume, &place).await?;
        }
    }
    socket::unpublish(node, volume, None).await?;
    fail_point!("unstage::unmounted");
    // An earlier call may have been cut off just here: no mount tells which disk it was, the disk itself does.
    if let Some(uuid) = volume.uuid {
        disks.extend(device::disks_of(&node.sysfs, &node.exports, uuid));
    }
    disks.sort_unstable();
    disks.dedup();
    for disk in disks {
        let_go(node, volume, disk, deadline).await?;
    }
    if let Some(uuid) = volume.uuid {
        node.tickets.remove(uuid)?;
    }
    if raw.exists() {
        blocking("removing a file", move || remove(&raw)).await?;
    }
    Ok(())
}

/// Nobody sees the volume but through the staging path.
async fn nobody_else(
    node: &Node,
    volume: &Volume,
    place: &Place,
    point: &Path,
) -> Result<(), Error> {
    let published = node.other_points(place, &[point])?;
    if !published.is_empty() {
        return Err(Error::Refused(format!(
            "volume {} is still published at {}: unpublish it there first",
            volume.id,
            listed(&published)
        )));
    }
    let Place::Filesystem(mount) = place else {
        return Ok(());
    };
    let (disk, ours) = (mount.device, mount.clone());
    let search = move || Ok(mounts::elsewhere(disk, &ours));
    let elsewhere = blocking("reading mounts of other processes", search).await?;
    if elsewhere.is_empty() {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "volume {} is still mounted in other mount namespaces: {}; end those processes",
        volume.id,
        elsewhere.join(", ")
    )))
}

/// Waits until nothing has the disk. A dead one has nothing to lose.
async fn let_go(
    node: &Node,
    volume: &Volume,
    disk: Numbers,
    deadline: Deadline,
) -> Result<(), Error> {
    if matches!(device::health(&node.sysfs, disk).await, Health::Dead(_)) {
        return Ok(());
    }
    let until = deadline.last_start().min(Instant::now() + LETTING_GO);
    loop {
        let sysfs = node.sysfs.clone();
        let claimed = move || device::claimed(&sysfs, disk);
        if !blocking("looking who has a disk", claimed).await? {
            return Ok(());
        }
        if Instant::now() >= until {
            break;
        }
        tokio::time::sleep(ASK).await;
    }
    let name = node.sysfs.name(disk).unwrap_or_else(|| disk.to_string());
    let holders = node.sysfs.holders(&name);
    let built = if holders.is_empty() {
        "a mount in another namespace, or a program".to_owned()
    } else {
        holders.join(", ")
    };
    Err(Error::Refused(format!(
        "/dev/{name} of volume {} is still in use: by {built}; end that, so that the disk can be taken away \
         without loss (`lsblk /dev/{name}`, `grep {disk} /proc/*/mountinfo`)",
        volume.id
    )))
}
