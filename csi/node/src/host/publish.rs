//! NodePublishVolume: what is staged is shown to one workload.
//!
//! The steps of NodeStageVolume are gone through first: a dead mount is replaced, and one that is lost (a kill between the two halves
//! of a replacement) is made again. kubelet would not stage a volume anew that it knows as staged.

use std::path::{Path, PathBuf};

use fail::fail_point;
use proto::csi::v1::{NodePublishVolumeRequest, NodeStageVolumeRequest};
use proto::deadline::Deadline;

use super::blocking::blocking;
use super::error::Error;
use super::mounts::{self, Place, Table};
use super::node::{Node, listed, staged_disk};
use super::repair;
use super::request::{self, Access};
use super::socket;
use super::stage::{self, Stage};
use super::stages::measure;

/// A checked request.
#[derive(Debug, Clone)]
pub(crate) struct Publish {
    /// What is to be staged.
    pub(crate) stage: Stage,
    /// Where it is to be shown.
    target: PathBuf,
    /// For reading alone.
    read_only: bool,
    /// The socket that is to be shown beside it.
    socket: Option<socket::Wish>,
}

impl Publish {
    /// Checks a request.
    pub(crate) fn new(node: &Node, request: NodePublishVolumeRequest) -> Result<Self, Error> {
        let target = request::path("target_path", &request.target_path);
        let asked = request.clone();
        let staged = NodeStageVolumeRequest {
            volume_id: request.volume_id,
            publish_context: request.publish_context,
            staging_target_path: request.staging_target_path,
            volume_capability: request.volume_capability,
            secrets: request.secrets,
            volume_context: request.volume_context,
        };
        let volume = request::Volume::new(&staged.volume_id)?;
        let target = target?;
        request::Usage::new(staged.volume_capability.as_ref())?;
        if staged.staging_target_path.is_empty() {
            // CSI specification, NodePublishVolume: the code for this.
            return Err(Error::Refused(format!(
                "staging_target_path is missing: volume {} is staged first, and its path given here",
                volume.id
            )));
        }
        let stage = Stage::new(node, &staged)?;
        if target == stage.staging {
            return Err(Error::Invalid(
                "target_path is the staging_target_path: give another path".to_owned(),
            ));
        }
        let read_only = request.readonly || stage.usage.reads_only();
        let socket = match stage.usage.access {
            Access::Block => socket::Wish::new(&asked, &stage.published, &node.exports)?,
            Access::Filesystem { .. } => None,
        };
        Ok(Self {
            stage,
            target,
            read_only,
            socket,
        })
    }
}

/// NodePublishVolume. The volume is locked by the caller.
pub(crate) async fn publish(
    node: &Node,
    publish: &Publish,
    deadline: Deadline,
) -> Result<(), Error> {
    show_volume(node, publish, deadline).await?;
    match &publish.socket {
        Some(wish) => measure("socket", socket::publish(node, wish, deadline)).await,
        None => Ok(()),
    }
}

async fn show_volume(node: &Node, publish: &Publish, deadline: Deadline) -> Result<(), Error> {
    fail_point!("publish::begun");
    let staging = request::resolve(&publish.stage.staging);
    let target = request::resolve(&publish.target);
    let source = match publish.stage.usage.access {
        Access::Block => staged_disk(&staging),
        Access::Filesystem { .. } => staging.clone(),
    };
    stage::stage(node, &publish.stage, deadline).await?;
    let staged = Place::at(&Table::read()?, &source).ok_or_else(|| {
        Error::Unavailable(format!("{}: unmounted meanwhile; repeat", source.display()))
    })?;
    match &staged {
        Place::Disk(..) if publish.read_only => read_only_disk(node, &staged)?,
        Place::Filesystem(mount) if mount.read_only() && !publish.read_only => {
            return Err(Error::Refused(format!(
                "volume {} was attached for reading alone: publish it read-only, or attach it for writing",
                publish.stage.volume.id
            )));
        }
        _ => {}
    }
    let raw = matches!(publish.stage.usage.access, Access::Block);
    let uuid = publish.stage.published.uuid;
    while let Some(place) = Place::at(&Table::read()?, &target) {
        if same(&place, &staged) {
            as_asked(&place, publish, &target)?;
            repair::healed(node, uuid, raw, deadline).await;
            return Ok(());
        }
        node.free_of_dead(&target, &place, &publish.stage.volume)
            .await?;
    }
    if !publish.stage.usage.at_many_paths() {
        let others = node.other_points(&staged, &[&source, &target])?;
        if !others.is_empty() {
            return Err(Error::Refused(format!(
                "volume {} is published at {} already, and its access mode {} allows one path; unpublish it \
                 there first",
                publish.stage.volume.id,
                listed(&others),
                publish.stage.usage.mode()
            )));
        }
    }
    let (on_the_way, read_only) = (node.on_the_way.clone(), publish.read_only);
    let bind = blocking("binding a volume", move || {
        show(&staged, &source, &target, read_only, &on_the_way)
    });
    measure("show", bind).await?;
    repair::healed(node, uuid, raw, deadline).await;
    fail_point!("publish::bound");
    Ok(())
}

/// Both are the same part of the same disk.
fn same(a: &Place, b: &Place) -> bool {
    match (a, b) {
        (Place::Filesystem(a), Place::Filesystem(b)) => a.same_source(b),
        (Place::Disk(_, a), Place::Disk(_, b)) => a == b,
        _ => false,
    }
}

/// It is published there already: as it is asked for now?
fn as_asked(place: &Place, publish: &Publish, target: &Path) -> Result<(), Error> {
    let Place::Filesystem(mount) = place else {
        return Ok(());
    };
    if mount.read_only() == publish.read_only {
        return Ok(());
    }
    let how = if mount.read_only() {
        "read-only"
    } else {
        "for writing"
    };
    Err(Error::Exists(format!(
        "volume {} is published at {} already, {how}; unpublish it first",
        publish.stage.volume.id,
        target.display()
    )))
}

fn read_only_disk(node: &Node, staged: &Place) -> Result<(), Error> {
    let name = staged.disk().and_then(|disk| node.sysfs.name(disk));
    let protected = name
        .as_ref()
        .and_then(|name| node.sysfs.attribute(name, "ro"));
    if protected.as_deref() == Some("1") {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "a raw disk can't be shown read-only to one workload, and /dev/{} can be written: attach the volume \
         read-only (ControllerPublishVolume), or publish it for writing",
        name.unwrap_or_default()
    )))
}

fn show(
    staged: &Place,
    source: &Path,
    target: &Path,
    read_only: bool,
    on_the_way: &Path,
) -> Result<(), Error> {
    let cant_make = |path: &Path, error: std::io::Error| {
        Error::Unavailable(format!("can't make {}: {error}; repeat", path.display()))
    };
    if let Place::Disk(..) = staged {
        if target.is_dir() {
            return Err(Error::Exists(format!(
                "target_path {} is a directory, and a raw disk is bound over a file; remove it",
                target.display()
            )));
        }
        stage::make_file(target)?;
        fail_point!("publish::made");
        mounts::bind(source, target)?;
    } else {
        match std::fs::create_dir(target) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && target.is_dir() => {}
            made => made.map_err(|error| cant_make(target, error))?,
        }
        fail_point!("publish::made");
        if read_only {
            // Several volumes at once: each has a place of its own.
            let name = staged.mount().device.to_string();
            let way = on_the_way.join(name);
            std::fs::create_dir_all(&way).map_err(|error| cant_make(&way, error))?;
            mounts::bind_read_only(source, target, &way)?;
            // Empty and unused: the next one makes it again if it is left.
            let _ = std::fs::remove_dir(&way);
        } else {
            mounts::bind(source, target)?;
        }
    }
    match Place::at(&Table::read()?, target) {
        Some(shown) if same(&shown, staged) => Ok(()),
        _ => Err(stage::took_back(target, source)),
    }
}
