//! What kubelet asks csi-node-host.

use std::path::{Path, PathBuf};

use proto::csi::v1::volume_health::VolumeHealthEntry;
use proto::csi::v1::{
    CapacityRange, NodeExpandVolumeRequest, NodeGetVolumeHealthRequest, NodePublishVolumeRequest,
    NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
};
use tonic::Status;

use super::{Calls, Map, Published, Volume};

impl Calls {
    /// Where the host stages it.
    #[must_use]
    pub fn staging(&self, volume: &Volume, host: usize) -> PathBuf {
        self.nodes[host].kubelet.join("staging").join(volume.uuid())
    }

    /// Where a pod of the host has it. A raw one is where kubelet has them: the last part is the pod's.
    #[must_use]
    pub fn target(&self, volume: &Volume, host: usize, pod: &str) -> PathBuf {
        let kubelet = &self.nodes[host].kubelet;
        match volume.usage.file_system {
            Some(_) => kubelet.join("pods").join(pod).join(volume.uuid()),
            None => kubelet.join("publish").join(volume.uuid()).join(pod),
        }
    }

    /// How this process reaches what the host has at an absolute path.
    #[must_use]
    pub fn seen(&self, host: usize, path: &Path) -> PathBuf {
        self.nodes[host]
            .root
            .join(path.strip_prefix("/").unwrap_or(path))
    }

    /// NodeStageVolume, where [`Self::staging`] says.
    ///
    /// # Errors
    /// The answer.
    pub async fn stage(&self, volume: &Volume, host: usize, context: &Map) -> Result<(), Status> {
        let staging = self.staging(volume, host);
        make(&staging)?;
        let request = NodeStageVolumeRequest {
            volume_id: volume.id.clone(),
            publish_context: context.clone(),
            staging_target_path: text(&staging),
            volume_capability: Some(volume.usage.capability()),
            secrets: self.secrets(),
            volume_context: volume.context.clone(),
        };
        let call = |request| {
            let mut client = self.node(host);
            async move { client.node_stage_volume(request).await }
        };
        self.ask(request, call).await.map(drop)
    }

    /// NodePublishVolume for a pod, where [`Self::target`] says.
    ///
    /// # Errors
    /// The answer.
    pub async fn node_publish(
        &self,
        volume: &Volume,
        host: usize,
        context: &Map,
        pod: &str,
    ) -> Result<Published, Status> {
        let target = self.target(volume, host, pod);
        make(target.parent().unwrap_or(&target))?;
        let request = NodePublishVolumeRequest {
            volume_id: volume.id.clone(),
            publish_context: context.clone(),
            staging_target_path: text(&self.staging(volume, host)),
            target_path: text(&target),
            volume_capability: Some(volume.usage.capability()),
            readonly: volume.usage.read_only,
            secrets: self.secrets(),
            volume_context: volume.context.clone(),
        };
        let call = |request| {
            let mut client = self.node(host);
            async move { client.node_publish_volume(request).await }
        };
        self.ask(request, call).await?;
        Ok(Published {
            context: context.clone(),
            seen: self.seen(host, &target),
            target,
        })
    }

    /// NodeUnpublishVolume for a pod.
    ///
    /// # Errors
    /// The answer.
    pub async fn node_unpublish(
        &self,
        volume: &Volume,
        host: usize,
        pod: &str,
    ) -> Result<(), Status> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: volume.id.clone(),
            target_path: text(&self.target(volume, host, pod)),
        };
        let call = |request| {
            let mut client = self.node(host);
            async move { client.node_unpublish_volume(request).await }
        };
        self.ask(request, call).await.map(drop)
    }

    /// NodeUnstageVolume.
    ///
    /// # Errors
    /// The answer.
    pub async fn unstage(&self, volume: &Volume, host: usize) -> Result<(), Status> {
        let request = NodeUnstageVolumeRequest {
            volume_id: volume.id.clone(),
            staging_target_path: text(&self.staging(volume, host)),
        };
        let call = |request| {
            let mut client = self.node(host);
            async move { client.node_unstage_volume(request).await }
        };
        self.ask(request, call).await.map(drop)
    }

    /// NodeExpandVolume of what a pod has: its size then.
    ///
    /// # Errors
    /// The answer.
    pub async fn node_expand(
        &self,
        volume: &Volume,
        host: usize,
        pod: &str,
        bytes: u64,
    ) -> Result<u64, Status> {
        let request = NodeExpandVolumeRequest {
            volume_id: volume.id.clone(),
            volume_path: text(&self.target(volume, host, pod)),
            capacity_range: Some(CapacityRange {
                required_bytes: bytes.cast_signed(),
                limit_bytes: 0,
            }),
            staging_target_path: text(&self.staging(volume, host)),
            volume_capability: Some(volume.usage.capability()),
            secrets: self.secrets(),
        };
        let call = |request| {
            let mut client = self.node(host);
            async move { client.node_expand_volume(request).await }
        };
        let answer = self.ask(request, call).await?;
        Ok(answer.capacity_bytes.cast_unsigned())
    }

    /// NodeGetVolumeHealth: what is wrong with what a pod has.
    ///
    /// # Errors
    /// The answer.
    pub async fn node_health(
        &self,
        volume: &Volume,
        host: usize,
        pod: &str,
    ) -> Result<Vec<VolumeHealthEntry>, Status> {
        let request = NodeGetVolumeHealthRequest {
            volume_id: volume.id.clone(),
            volume_publish_path: text(&self.target(volume, host, pod)),
            staging_target_path: text(&self.staging(volume, host)),
        };
        let call = |request| {
            let mut client = self.node(host);
            async move { client.node_get_volume_health(request).await }
        };
        let answer = self.ask(request, call).await?;
        Ok(answer.volume_health.unwrap_or_default().health_statuses)
    }

    /// All that happens until a pod has the volume.
    ///
    /// # Errors
    /// The first answer that is one.
    pub async fn up(&self, volume: &Volume, host: usize, pod: &str) -> Result<Published, Status> {
        let context = self.publish(volume, host).await?;
        self.stage(volume, host, &context).await?;
        self.node_publish(volume, host, &context, pod).await
    }

    /// All that happens after the pod has gone, until the host has lost the volume.
    ///
    /// # Errors
    /// The first answer that is one.
    pub async fn down(&self, volume: &Volume, host: usize, pod: &str) -> Result<(), Status> {
        self.node_unpublish(volume, host, pod).await?;
        self.unstage(volume, host).await?;
        self.unpublish(volume, host).await
    }
}

/// As kubelet makes them.
fn make(dir: &Path) -> Result<(), Status> {
    std::fs::create_dir_all(dir)
        .map_err(|why| Status::internal(format!("cannot make {}: {why}", dir.display())))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
