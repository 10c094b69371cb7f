//! Requests as kubelet makes them.

use std::collections::BTreeMap;

use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use proto::csi::v1::{
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, VolumeCapability,
};
use tonic::{Code, Response, Status};

use super::world::{Disk, World};

/// In every request that can have secrets; in no log.
pub(crate) const SECRET: &str = "s3cr3t-of-this-test";

pub(crate) fn files(kind: &str, mode: Mode, flags: &[&str]) -> Option<VolumeCapability> {
    let mount = MountVolume {
        fs_type: kind.to_owned(),
        mount_flags: flags.iter().map(|&f| f.to_owned()).collect(),
        volume_mount_group: String::new(),
    };
    Some(VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(mount)),
    })
}

pub(crate) fn ext4() -> Option<VolumeCapability> {
    files("ext4", Mode::SingleNodeMultiWriter, &[])
}

pub(crate) fn block(mode: Mode) -> Option<VolumeCapability> {
    Some(VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Block(BlockVolume {})),
    })
}

pub(crate) fn context(disk: &Disk, fresh: bool) -> BTreeMap<String, String> {
    [
        ("uuid", disk.uuid.to_string()),
        ("serial", "N6LBT74LQZGQDNBN".to_owned()),
        ("kind", "loop".to_owned()),
        ("address", disk.file.display().to_string()),
        ("size", disk.bytes.to_string()),
        ("fresh", fresh.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

pub(crate) fn secrets() -> BTreeMap<String, String> {
    [("key".to_owned(), SECRET.to_owned())].into()
}

pub(crate) fn stage(
    world: &World,
    disk: &Disk,
    capability: Option<VolumeCapability>,
) -> NodeStageVolumeRequest {
    NodeStageVolumeRequest {
        volume_id: disk.id(),
        publish_context: context(disk, true),
        staging_target_path: world.dir(&format!("staging/{}", disk.uuid)),
        volume_capability: capability,
        secrets: secrets(),
        volume_context: BTreeMap::new(),
    }
}

/// The volume, as it is staged, for one pod.
pub(crate) fn publish(
    world: &World,
    staged: &NodeStageVolumeRequest,
    pod: &str,
) -> NodePublishVolumeRequest {
    let pod = world.dir(&format!("pods/{pod}"));
    let staged = staged.clone();
    NodePublishVolumeRequest {
        target_path: format!("{pod}/{}", staged.volume_id),
        volume_id: staged.volume_id,
        publish_context: staged.publish_context,
        staging_target_path: staged.staging_target_path,
        volume_capability: staged.volume_capability,
        readonly: false,
        secrets: staged.secrets,
        volume_context: staged.volume_context,
    }
}

pub(crate) fn unpublish(published: &NodePublishVolumeRequest) -> NodeUnpublishVolumeRequest {
    NodeUnpublishVolumeRequest {
        volume_id: published.volume_id.clone(),
        target_path: published.target_path.clone(),
    }
}

pub(crate) fn unstage(staged: &NodeStageVolumeRequest) -> NodeUnstageVolumeRequest {
    NodeUnstageVolumeRequest {
        volume_id: staged.volume_id.clone(),
        staging_target_path: staged.staging_target_path.clone(),
    }
}

/// The code and the sentence of a call that must fail, without details.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(
    result: Result<Response<T>, Status>,
    code: Code,
    sentence: &str,
) {
    let status = result.expect_err(sentence);
    let said = status.message();
    assert_eq!(status.code(), code, "{said}");
    assert!(said.contains(sentence), "{said}");
    assert!(status.details().is_empty(), "{said}");
}
