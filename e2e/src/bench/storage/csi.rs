//! The calls that the sidecars and kubelet make for a volume, timed where the caller stands.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use proto::csi::v1::controller_client::ControllerClient;
use proto::csi::v1::node_client::NodeClient;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use proto::csi::v1::{
    CapacityRange, ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest,
    CreateSnapshotRequest, CreateVolumeRequest, DeleteSnapshotRequest, DeleteVolumeRequest,
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, VolumeCapability, VolumeContentSource,
};
use tonic::Request;
use tonic::transport::Channel;

use super::{HOSTS, Shape, Times};
use crate::bench::Bench;
use crate::storage::Chain;

/// A call that takes longer is no measurement.
const LIMIT: Duration = Duration::from_secs(120);

/// Clients of the chain's programs.
pub(super) struct Csi {
    controller: ControllerClient<Channel>,
    hosts: Vec<Host>,
}

struct Host {
    node: NodeClient<Channel>,
    /// kubelet's directory, as the host has it.
    kubelet: PathBuf,
    /// The same, as this process has it.
    seen: PathBuf,
}

/// A volume.
#[derive(Debug, Clone)]
pub(super) struct Volume {
    pub(super) id: String,
    context: BTreeMap<String, String>,
}

/// A volume that a workload of a host has.
#[derive(Debug)]
pub(super) struct Attached {
    volume: Volume,
    host: usize,
    /// What the workload sees, as this process reaches it.
    pub(super) device: PathBuf,
    target: PathBuf,
    staging: PathBuf,
    pub(super) times: Times,
}

/// What a volume is made from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    Nothing,
    Volume(&'a Volume),
    Snapshot(&'a str),
}

impl Volume {
    #[cfg(test)]
    pub(super) fn named(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            context: BTreeMap::new(),
        }
    }

    /// The last part of its id.
    pub(super) fn uuid(&self) -> &str {
        self.id.rsplit('.').next().unwrap_or_default()
    }
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(LIMIT);
    request
}

fn capability(shape: Shape) -> VolumeCapability {
    let access_type = match shape {
        Shape::Block => AccessType::Block(BlockVolume {}),
        Shape::Ext4 => AccessType::Mount(MountVolume {
            fs_type: "ext4".into(),
            ..MountVolume::default()
        }),
    };
    VolumeCapability {
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
        access_type: Some(access_type),
    }
}

impl Csi {
    /// Of a chain of [`HOSTS`].
    pub(super) fn of(bench: &Bench, chain: &Chain) -> Self {
        let _runtime = bench.runtime.enter();
        let host = |host| {
            let kubelet = chain.kubelet(host);
            Host {
                node: NodeClient::new(proto::uds::channel(chain.node_socket(host))),
                seen: chain.seen(host, &kubelet),
                kubelet,
            }
        };
        let controller = proto::uds::channel(chain.controller_socket());
        Self {
            controller: ControllerClient::new(controller),
            hosts: (0..HOSTS.len()).map(host).collect(),
        }
    }

    /// CreateVolume.
    pub(super) async fn create(
        &self,
        name: &str,
        bytes: u64,
        shape: Shape,
        source: Source<'_>,
    ) -> Result<(Volume, Duration)> {
        let source = match source {
            Source::Nothing => None,
            Source::Volume(volume) => Some(Type::Volume(VolumeSource {
                volume_id: volume.id.clone(),
            })),
            Source::Snapshot(id) => Some(Type::Snapshot(SnapshotSource {
                snapshot_id: id.to_owned(),
            })),
        };
        let message = CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(CapacityRange {
                required_bytes: i64::try_from(bytes)?,
                limit_bytes: 0,
            }),
            volume_capabilities: vec![capability(shape)],
            volume_content_source: source.map(|source| VolumeContentSource {
                r#type: Some(source),
            }),
            ..CreateVolumeRequest::default()
        };
        let begun = Instant::now();
        let answer = self
            .controller
            .clone()
            .create_volume(request(message))
            .await?;
        let time = begun.elapsed();
        let volume = answer
            .into_inner()
            .volume
            .context("CreateVolume answered no volume")?;
        let volume = Volume {
            id: volume.volume_id,
            context: volume.volume_context,
        };
        Ok((volume, time))
    }

    /// DeleteVolume.
    pub(super) async fn delete(&self, volume: &Volume) -> Result<Duration> {
        let message = DeleteVolumeRequest {
            volume_id: volume.id.clone(),
            ..DeleteVolumeRequest::default()
        };
        let begun = Instant::now();
        self.controller
            .clone()
            .delete_volume(request(message))
            .await?;
        Ok(begun.elapsed())
    }

    /// CreateSnapshot: its id.
    pub(super) async fn snapshot(&self, name: &str, volume: &Volume) -> Result<(String, Duration)> {
        let message = CreateSnapshotRequest {
            name: name.to_owned(),
            source_volume_id: volume.id.clone(),
            ..CreateSnapshotRequest::default()
        };
        let begun = Instant::now();
        let answer = self
            .controller
            .clone()
            .create_snapshot(request(message))
            .await?;
        let time = begun.elapsed();
        let snapshot = answer
            .into_inner()
            .snapshot
            .context("CreateSnapshot answered no snapshot")?;
        Ok((snapshot.snapshot_id, time))
    }

    /// DeleteSnapshot.
    pub(super) async fn delete_snapshot(&self, id: &str) -> Result<()> {
        let message = DeleteSnapshotRequest {
            snapshot_id: id.to_owned(),
            ..DeleteSnapshotRequest::default()
        };
        self.controller
            .clone()
            .delete_snapshot(request(message))
            .await?;
        Ok(())
    }

    /// ControllerPublishVolume, NodeStageVolume, NodePublishVolume, one after the other.
    pub(super) async fn attach(
        &self,
        volume: &Volume,
        host: usize,
        shape: Shape,
    ) -> Result<Attached> {
        let at = self.hosts.get(host).context("no such host")?;
        let place = at.kubelet.join(volume.uuid());
        let (staging, target) = (place.join("staging"), place.join("target"));
        let seen = at.seen.join(volume.uuid());
        // kubelet makes the one, the plugin the other.
        fs::create_dir_all(seen.join("staging"))?;
        let mut node = at.node.clone();
        let publish = ControllerPublishVolumeRequest {
            volume_id: volume.id.clone(),
            node_id: HOSTS[host].to_owned(),
            volume_capability: Some(capability(shape)),
            volume_context: volume.context.clone(),
            ..ControllerPublishVolumeRequest::default()
        };
        let begun = Instant::now();
        let published = self
            .controller
            .clone()
            .controller_publish_volume(request(publish))
            .await
            .context("ControllerPublishVolume")?;
        let there = begun.elapsed();
        let publish_context = published.into_inner().publish_context;
        let stage = NodeStageVolumeRequest {
            volume_id: volume.id.clone(),
            publish_context: publish_context.clone(),
            staging_target_path: staging.display().to_string(),
            volume_capability: Some(capability(shape)),
            volume_context: volume.context.clone(),
            ..NodeStageVolumeRequest::default()
        };
        node.node_stage_volume(request(stage))
            .await
            .context("NodeStageVolume")?;
        let staged = begun.elapsed();
        let bind = NodePublishVolumeRequest {
            volume_id: volume.id.clone(),
            publish_context,
            staging_target_path: staging.display().to_string(),
            target_path: target.display().to_string(),
            volume_capability: Some(capability(shape)),
            volume_context: volume.context.clone(),
            ..NodePublishVolumeRequest::default()
        };
        node.node_publish_volume(request(bind))
            .await
            .context("NodePublishVolume")?;
        let times = Times {
            publish: there,
            stage: staged - there,
            bind: begun.elapsed() - staged,
        };
        Ok(Attached {
            volume: volume.clone(),
            host,
            device: seen.join("target"),
            target,
            staging,
            times,
        })
    }

    /// The way back.
    pub(super) async fn detach(&self, attached: &Attached) -> Result<()> {
        let id = &attached.volume.id;
        let at = self.hosts.get(attached.host).context("no such host")?;
        let mut node = at.node.clone();
        let unbind = NodeUnpublishVolumeRequest {
            volume_id: id.clone(),
            target_path: attached.target.display().to_string(),
        };
        node.node_unpublish_volume(request(unbind))
            .await
            .context("NodeUnpublishVolume")?;
        let unstage = NodeUnstageVolumeRequest {
            volume_id: id.clone(),
            staging_target_path: attached.staging.display().to_string(),
        };
        node.node_unstage_volume(request(unstage))
            .await
            .context("NodeUnstageVolume")?;
        let unpublish = ControllerUnpublishVolumeRequest {
            volume_id: id.clone(),
            node_id: HOSTS[attached.host].to_owned(),
            ..ControllerUnpublishVolumeRequest::default()
        };
        self.controller
            .clone()
            .controller_unpublish_volume(request(unpublish))
            .await
            .context("ControllerUnpublishVolume")?;
        Ok(())
    }
}
