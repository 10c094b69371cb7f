//! NodeStageVolume: the disk is found, and mounted once for all workloads of this node. A raw disk is bound over a file in the
//! staging directory, so that it, too, is read from the mount table.
//!
//! Every step looks first, so that the call may be repeated after a kill between any two of them:
//! find → open → (nothing there? format) → check → mount → grow.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fail::fail_point;
use proto::csi::v1::NodeStageVolumeRequest;
use proto::deadline::Deadline;

use super::blocking::blocking;
use super::device::Device;
use super::error::Error;
use super::filesystem::{self, Content, Fresh, Kind};
use super::mounts::{self, Flags, Mount, Mounting, Place, Table};
use super::node::{Node, staged_disk};
use super::repair;
use super::request::{self, Access, MkfsOptions, Published, Usage, Volume};
use super::stages::measure;

/// A checked request.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    /// The volume.
    pub(crate) volume: Volume,
    /// Its disk.
    pub(crate) published: Published,
    /// Where.
    pub(crate) staging: PathBuf,
    /// As what.
    pub(crate) usage: Usage,
    /// How it would be formatted.
    pub(crate) mkfs: MkfsOptions,
}

impl Stage {
    /// Checks a request.
    pub(crate) fn new(node: &Node, request: &NodeStageVolumeRequest) -> Result<Self, Error> {
        let volume = Volume::new(&request.volume_id)?;
        let staging = request::path("staging_target_path", &request.staging_target_path)?;
        let usage = Usage::new(request.volume_capability.as_ref())?;
        request::map("secrets", &request.secrets)?;
        let mkfs = MkfsOptions::new(&request.volume_context)?;
        if let Access::Filesystem { kind, .. } = &usage.access {
            mkfs.arguments(kind.unwrap_or_default())?;
        }
        let published = Published::new(&request.publish_context, &volume, &node.exports)?;
        Ok(Self {
            volume,
            published,
            staging,
            usage,
            mkfs,
        })
    }
}

/// NodeStageVolume. The volume is locked by the caller.
pub(crate) async fn stage(node: &Node, stage: &Stage, deadline: Deadline) -> Result<(), Error> {
    fail_point!("stage::begun");
    let staging = request::resolve(&stage.staging);
    if !staging.is_dir() && Place::at(&Table::read()?, &staging).is_none() {
        return Err(Error::Refused(format!(
            "staging_target_path {} is no directory: make it first",
            staging.display()
        )));
    }
    let device = measure("find", repair::device(node, &stage.published, deadline)).await?;
    match &stage.usage.access {
        Access::Block => disk(node, &staging, &device, &stage.volume).await,
        Access::Filesystem { kind, flags } => {
            // A disk that was attached for reading alone can be mounted no other way, and whoever attached it so wants that.
            let protected = node.sysfs.attribute(&device.found.name, "ro").as_deref() == Some("1");
            let wish = Wish {
                kind: *kind,
                flags,
                read_only: protected || stage.usage.reads_only(),
                unrecovered: protected || stage.usage.on_many_nodes(),
                stage,
            };
            files(node, &staging, &device, &wish).await
        }
    }
}

async fn disk(
    node: &Node,
    staging: &Path,
    device: &Arc<Device>,
    volume: &Volume,
) -> Result<(), Error> {
    if let Some(place) = Place::at(&Table::read()?, staging) {
        node.free_of_dead(staging, &place, volume).await?;
    }
    let file = staged_disk(staging);
    while let Some(place) = Place::at(&Table::read()?, &file) {
        if place.disk() == Some(device.found.numbers) && node.works(&place).await? {
            return Ok(());
        }
        node.free_of_dead(&file, &place, volume).await?;
    }
    let (source, numbers) = (device.path(), device.found.numbers);
    let bind = blocking("binding a disk", move || {
        make_file(&file)?;
        mounts::bind(&source, &file)?;
        match Place::at(&Table::read()?, &file) {
            Some(Place::Disk(_, bound)) if bound == numbers => Ok(()),
            _ => Err(took_back(&file, &source)),
        }
    });
    measure("bind", bind).await?;
    fail_point!("stage::mounted");
    Ok(())
}

/// What a file system should be.
struct Wish<'a> {
    kind: Option<Kind>,
    flags: &'a Flags,
    read_only: bool,
    /// Not even its journal may be written.
    unrecovered: bool,
    stage: &'a Stage,
}

async fn files(
    node: &Node,
    staging: &Path,
    device: &Arc<Device>,
    wish: &Wish<'_>,
) -> Result<(), Error> {
    let raw = staged_disk(staging);
    if let Some(place @ Place::Disk(..)) = Place::at(&Table::read()?, &raw) {
        node.free_of_dead(&raw, &place, &wish.stage.volume).await?;
    }
    while let Some(place) = Place::at(&Table::read()?, staging) {
        if place.disk() == Some(device.found.numbers) && node.works(&place).await? {
            return staged(place.mount(), device, wish).await;
        }
        node.free_of_dead(staging, &place, &wish.stage.volume)
            .await?;
    }
    let read_only = wish.read_only;
    let kind = prepare(node, device, wish).await?;
    let smaller = {
        let device = Arc::clone(device);
        blocking("reading a superblock", move || {
            filesystem::is_smaller(&device.found, kind)
        })
        .await?
    };
    // While mounted, if that is possible: it needs no check from end to end.
    let smaller = smaller && !read_only;
    let later = smaller && filesystem::may_grow_mounted(kind);
    if smaller && !later {
        measure("grow", filesystem::grow_unmounted(device)).await?;
    }
    let (flags, unrecovered) = (wish.flags.clone(), wish.unrecovered);
    let (disk, point, numbers) = (device.path(), staging.to_owned(), device.found.numbers);
    let mount = blocking("mounting", move || {
        let how = Mounting {
            kind,
            flags: &flags,
            read_only,
            unrecovered,
        };
        mounts::filesystem(&disk, &point, &how)?;
        match Table::read()?.top(&point) {
            Some(mount) if mount.device == numbers => Ok(()),
            _ => Err(took_back(&point, &disk)),
        }
    });
    measure("mount", mount).await?;
    fail_point!("stage::mounted");
    if later {
        measure("grow", filesystem::grow(kind, &device.path(), staging)).await?;
    }
    Ok(())
}

/// It is mounted already: as it is asked for now?
async fn staged(mount: &Mount, device: &Arc<Device>, wish: &Wish<'_>) -> Result<(), Error> {
    let read_only = wish.read_only;
    let point = mount.point.display();
    let otherwise = |how: String| {
        Error::Exists(format!(
            "{point}: the volume is staged there already, {how}; unstage it first"
        ))
    };
    let kind = Kind::named(&mount.kind);
    if wish.kind.is_some() && wish.kind != kind {
        return Err(otherwise(format!("as {}", mount.kind)));
    }
    if mount.read_only() != read_only {
        let how = if read_only {
            "for writing"
        } else {
            "read-only"
        };
        return Err(otherwise(how.to_owned()));
    }
    if let Some(option) = wish.flags.difference(mount) {
        return Err(otherwise(format!(
            "with another choice of the mount option {option}"
        )));
    }
    // The file system may be smaller than its disk: a grow that was cut off.
    if let Some(kind) = kind
        && !read_only
        && filesystem::may_grow_mounted(kind)
    {
        let disk = Arc::clone(device);
        let smaller = move || filesystem::is_smaller(&disk.found, kind);
        if blocking("reading a superblock", smaller).await? {
            filesystem::grow(kind, &device.path(), &mount.point).await?;
        }
    }
    Ok(())
}

/// Sees to it that the disk has a file system that can be mounted.
async fn prepare(node: &Node, device: &Arc<Device>, wish: &Wish<'_>) -> Result<Kind, Error> {
    let Published { uuid, fresh, .. } = wish.stage.published;
    let path = device.path();
    let path = path.display();
    let refused = |what: &str| {
        Error::Refused(format!(
            "{path}: volume {uuid} holds {what}: it is left alone; ask for the file system that is there, \
             use volumeMode: Block, or delete the volume"
        ))
    };
    let content = measure("content", filesystem::content(device)).await?;
    // An mkfs of ours was cut off on it: what is recognized is nothing yet.
    let cut_off = fresh && node.tickets.has(uuid, device);
    match content {
        Content::Foreign(what) if !cut_off => return Err(refused(&what)),
        Content::Filesystem(kind) if !cut_off => {
            if let Some(wanted) = wish.kind.filter(|wanted| *wanted != kind) {
                return Err(refused(&format!("{kind}, and {wanted} was asked for")));
            }
            node.tickets.remove(uuid)?;
            if !wish.read_only {
                measure("check", filesystem::check(device, kind)).await?;
            }
            return Ok(kind);
        }
        _ => {}
    }
    if wish.read_only {
        return Err(Error::Refused(format!(
            "{path}: volume {uuid} has no file system, and one is not made for reading alone; stage it for \
             writing first"
        )));
    }
    let kind = wish.kind.unwrap_or_default();
    let (tickets, mkfs) = (&node.tickets, &wish.stage.mkfs);
    let proof = measure("blank", Fresh::prove(device, uuid, fresh, tickets)).await?;
    let format = filesystem::format(device, uuid, kind, mkfs, proof, tickets);
    measure("format", format).await?;
    Ok(kind)
}

/// Makes the file over which a disk is bound.
pub(crate) fn make_file(path: &Path) -> Result<(), Error> {
    let made = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path);
    made.map(drop).map_err(|error| {
        Error::Unavailable(format!(
            "can't make the file {}: {error}; repeat",
            path.display()
        ))
    })
}

/// Something else came to lie under the disk's name between two looks.
pub(crate) fn took_back(point: &Path, source: &Path) -> Error {
    let undone = mounts::detach(point).err();
    let undone = undone.map_or_else(|| "it was undone".to_owned(), |error| error.to_string());
    Error::Unavailable(format!(
        "{}: what was mounted from {} is not the volume's disk; {undone}; repeat",
        point.display(),
        source.display()
    ))
}
