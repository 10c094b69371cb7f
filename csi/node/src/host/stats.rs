//! NodeGetVolumeStats: how full.

use std::path::{Path, PathBuf};

use nix::sys::statfs::statfs;
use proto::csi::v1::volume_usage::Unit;
use proto::csi::v1::{NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, VolumeUsage};

use super::blocking::blocking;
use super::device::{self, Health};
use super::error::Error;
use super::mounts::Place;
use super::node::Node;
use super::request::{self, Volume};

/// A checked request.
#[derive(Debug)]
pub(crate) struct Stats {
    /// The volume.
    pub(crate) volume: Volume,
    path: PathBuf,
}

impl Stats {
    /// Checks a request.
    pub(crate) fn new(request: &NodeGetVolumeStatsRequest) -> Result<Self, Error> {
        let volume = Volume::new(&request.volume_id)?;
        let path = existing("volume_path", &request.volume_path)?;
        if !request.staging_target_path.is_empty() {
            existing("staging_target_path", &request.staging_target_path)?;
        }
        Ok(Self { volume, path })
    }
}

/// A path at which a volume is said to be. One that is relative is no volume's: NOT_FOUND, as the specification has it.
pub(crate) fn existing(field: &str, path: &str) -> Result<PathBuf, Error> {
    if !path.is_empty() && !path.starts_with('/') {
        return Err(Error::NotFound(format!(
            "{field} {path:?} is relative: no volume is there; give the path where it is staged or published"
        )));
    }
    request::path(field, path)
}

/// What is mounted at a volume's path.
pub(crate) fn place(node: &Node, volume: &Volume, path: &Path) -> Result<Place, Error> {
    let not_there = || {
        Error::NotFound(format!(
            "volume {} is not at {}: give the path where it is staged or published",
            volume.id,
            path.display()
        ))
    };
    let place = node.place(&request::resolve(path))?.ok_or_else(not_there)?;
    match place.disk() {
        Some(disk) if !node.is_of_another(disk, volume) => Ok(place),
        _ => Err(not_there()),
    }
}

/// NodeGetVolumeStats. It waits for no other call.
pub(crate) async fn stats(node: &Node, ask: &Stats) -> Result<NodeGetVolumeStatsResponse, Error> {
    let place = place(node, &ask.volume, &ask.path)?;
    let Some(disk) = place.disk() else {
        return Err(Error::NotFound(format!(
            "{} is no volume",
            ask.path.display()
        )));
    };
    let health = device::health(&node.sysfs, disk).await;
    let usage = match (&place, &health) {
        // A look at a file system whose disk is silent would wait for it.
        (Place::Filesystem(mount), Health::Alive { .. } | Health::Dead(_)) => {
            let point = mount.point.clone();
            blocking("reading how full a volume is", move || Ok(files(&point))).await?
        }
        (_, Health::Alive { bytes }) => vec![bytes_of_disk(*bytes)],
        _ => vec![bytes_of_disk(0)],
    };
    Ok(NodeGetVolumeStatsResponse { usage })
}

fn bytes_of_disk(bytes: u64) -> VolumeUsage {
    VolumeUsage {
        total: signed(bytes),
        unit: Unit::Bytes.into(),
        ..VolumeUsage::default()
    }
}

fn files(point: &Path) -> Vec<VolumeUsage> {
    let Ok(stat) = statfs(point) else {
        return vec![bytes_of_disk(0)];
    };
    let block = u64::try_from(stat.block_size()).unwrap_or(0);
    let bytes = |blocks: u64| signed(blocks.saturating_mul(block));
    vec![
        VolumeUsage {
            total: bytes(stat.blocks()),
            available: bytes(stat.blocks_available()),
            used: bytes(stat.blocks().saturating_sub(stat.blocks_free())),
            unit: Unit::Bytes.into(),
        },
        VolumeUsage {
            total: signed(stat.files()),
            available: signed(stat.files_free()),
            used: signed(stat.files().saturating_sub(stat.files_free())),
            unit: Unit::Inodes.into(),
        },
    ]
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
