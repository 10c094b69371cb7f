//! NodeGetVolumeHealth: how a volume is, as seen from this node.

use std::path::PathBuf;

use proto::csi::v1::volume_health::VolumeHealthEntry;
use proto::csi::v1::{
    NodeGetVolumeHealthRequest, NodeGetVolumeHealthResponse, VolumeHealth, VolumeHealthErrorType,
};

use super::device::{self, Health, Numbers};
use super::error::Error;
use super::mounts::Table;
use super::node::{Node, listed};
use super::request::Volume;
use super::stats::{existing, place};

/// A checked request.
#[derive(Debug)]
pub(crate) struct Ask {
    /// The volume.
    pub(crate) volume: Volume,
    /// Where it may be: first what its workload sees.
    paths: Vec<PathBuf>,
}

impl Ask {
    /// Checks a request.
    pub(crate) fn new(request: &NodeGetVolumeHealthRequest) -> Result<Self, Error> {
        let volume = Volume::new(&request.volume_id)?;
        let given = [
            ("volume_publish_path", &request.volume_publish_path),
            ("staging_target_path", &request.staging_target_path),
        ];
        let given = given.into_iter().filter(|(_, path)| !path.is_empty());
        let paths = given.map(|(field, path)| existing(field, path));
        Ok(Self {
            volume,
            paths: paths.collect::<Result<_, _>>()?,
        })
    }
}

/// NodeGetVolumeHealth. It waits for no other call.
pub(crate) async fn health(node: &Node, ask: &Ask) -> Result<NodeGetVolumeHealthResponse, Error> {
    let mut wrong = Vec::new();
    let disks = disks(node, ask)?;
    for disk in &disks {
        match device::health(&node.sysfs, *disk).await {
            Health::Alive { .. } => {}
            Health::Dead(why) => wrong.push(inaccessible("DiskDead", why)),
            Health::Silent(why) => wrong.push(inaccessible("DiskSilent", why)),
        }
    }
    let table = Table::read()?;
    if table
        .iter()
        .any(|mount| disks.contains(&mount.device) && mount.gave_up())
    {
        wrong.push(entry(
            VolumeHealthErrorType::Degraded,
            "FilesystemReadOnly",
            "the kernel made the file system read-only after an error; delete the pod, so that the volume is \
             unmounted and checked"
                .to_owned(),
        ));
    }
    // One entry per reason, as the specification has it, also when two disks say that they are the volume.
    wrong.sort_by(|a, b| a.reason.cmp(&b.reason));
    wrong.dedup_by(|later, first| later.reason == first.reason);
    Ok(NodeGetVolumeHealthResponse {
        volume_health: Some(VolumeHealth {
            volume_id: ask.volume.id.clone(),
            health_statuses: wrong,
        }),
    })
}

/// What is mounted at the first of the paths where the volume is. At none, since staging failed or no path was given: what says
/// that it is the volume.
fn disks(node: &Node, ask: &Ask) -> Result<Vec<Numbers>, Error> {
    for path in &ask.paths {
        match place(node, &ask.volume, path) {
            Ok(place) => return Ok(place.disk().into_iter().collect()),
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let disks = ask
        .volume
        .uuid
        .map(|uuid| device::disks_of(&node.sysfs, &node.exports, uuid))
        .unwrap_or_default();
    if disks.is_empty() {
        return Err(Error::NotFound(format!(
            "volume {} is not on this node: no disk says that it is, and it is not mounted at the given paths ({}); \
             give the path where it is staged or published",
            ask.volume.id,
            listed(&ask.paths)
        )));
    }
    Ok(disks)
}

fn inaccessible(reason: &str, message: String) -> VolumeHealthEntry {
    entry(VolumeHealthErrorType::Inaccessible, reason, message)
}

fn entry(status: VolumeHealthErrorType, reason: &str, message: String) -> VolumeHealthEntry {
    VolumeHealthEntry {
        status: status.into(),
        reason: reason.to_owned(),
        message,
    }
}
