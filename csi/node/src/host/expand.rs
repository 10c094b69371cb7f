//! NodeExpandVolume: the disk has grown (csi-controller and the card saw to it); what is on it grows now.

use std::path::PathBuf;

use fail::fail_point;
use proto::csi::v1::{CapacityRange, NodeExpandVolumeRequest};
use proto::deadline::Deadline;

use super::blocking::blocking;
use super::device::{self, Found};
use super::error::Error;
use super::filesystem::{self, Kind};
use super::mounts::{Place, Table};
use super::node::Node;
use super::request::{self, Access, Usage, Volume};
use super::stats::{existing, place};

/// A checked request.
#[derive(Debug)]
pub(crate) struct Expand {
    /// The volume.
    pub(crate) volume: Volume,
    path: PathBuf,
    required: u64,
    limit: Option<u64>,
    usage: Option<Usage>,
}

impl Expand {
    /// Checks a request.
    pub(crate) fn new(request: &NodeExpandVolumeRequest) -> Result<Self, Error> {
        let volume = Volume::new(&request.volume_id)?;
        let path = existing("volume_path", &request.volume_path)?;
        if !request.staging_target_path.is_empty() {
            existing("staging_target_path", &request.staging_target_path)?;
        }
        request::map("secrets", &request.secrets)?;
        let (required, limit) = range(request.capacity_range.as_ref())?;
        let usage = match &request.volume_capability {
            None => None,
            capability => Some(Usage::new(capability.as_ref())?),
        };
        Ok(Self {
            volume,
            path,
            required,
            limit,
            usage,
        })
    }
}

fn range(range: Option<&CapacityRange>) -> Result<(u64, Option<u64>), Error> {
    let number = |field: &str, value: i64| {
        u64::try_from(value).map_err(|_| {
            Error::Invalid(format!(
                "capacity_range.{field} is {value}: give a number of bytes"
            ))
        })
    };
    let Some(range) = range else {
        return Ok((0, None));
    };
    let required = number("required_bytes", range.required_bytes)?;
    let limit = Some(number("limit_bytes", range.limit_bytes)?).filter(|limit| *limit > 0);
    if limit.is_some_and(|limit| limit < required) {
        return Err(Error::Invalid(format!(
            "capacity_range.limit_bytes is less than required_bytes ({required}): give a range"
        )));
    }
    Ok((required, limit))
}

/// NodeExpandVolume: the size of the disk. The volume is locked by the caller.
pub(crate) async fn expand(node: &Node, ask: &Expand, deadline: Deadline) -> Result<u64, Error> {
    fail_point!("expand::begun");
    let place = place(node, &ask.volume, &ask.path)?;
    let raw = matches!(place, Place::Disk(..));
    if let Some(usage) = &ask.usage
        && matches!(usage.access, Access::Block) != raw
    {
        let is = if raw { "a raw disk" } else { "a file system" };
        return Err(Error::Invalid(format!(
            "volume_capability does not fit: volume {} is used as {is}",
            ask.volume.id
        )));
    }
    let Some(disk) = place.disk() else {
        return Err(Error::NotFound(format!(
            "{} is no volume",
            ask.path.display()
        )));
    };
    if !node.works(&place).await? {
        return Err(Error::Unavailable(format!(
            "volume {}: its disk is dead; delete the pod, so that the volume is published anew",
            ask.volume.id
        )));
    }
    let bytes = device::grown(&node.sysfs, disk, ask.required, deadline).await?;
    if let Some(limit) = ask.limit.filter(|limit| *limit < bytes) {
        return Err(Error::OutOfRange(format!(
            "the disk of volume {} has {bytes} bytes, more than the limit of {limit}; volumes do not shrink",
            ask.volume.id
        )));
    }
    let (Place::Filesystem(mount), Some(name)) = (&place, node.sysfs.name(disk)) else {
        return Ok(bytes);
    };
    let kind = Kind::named(&mount.kind).ok_or_else(|| {
        Error::Refused(format!(
            "{}: {} can't be grown",
            ask.path.display(),
            mount.kind
        ))
    })?;
    // The path that was given may be one for reading alone, of a file system that others write.
    let table = Table::read()?;
    let writable = table.iter().find(|m| m.device == disk && !m.read_only());
    let writable = writable.ok_or_else(|| {
        Error::Refused(format!(
            "volume {} is mounted read-only: it grows when it is staged for writing",
            ask.volume.id
        ))
    })?;
    let path = PathBuf::from("/dev").join(&name);
    let found = Found {
        name,
        numbers: disk,
        bytes,
        proven: true,
    };
    let smaller = move || filesystem::is_smaller(&found, kind);
    // What the kernel keeps of xfs is newer than what lies on the disk.
    if kind == Kind::Xfs || blocking("reading a superblock", smaller).await? {
        filesystem::grow(kind, &path, &writable.point).await?;
    }
    Ok(bytes)
}
