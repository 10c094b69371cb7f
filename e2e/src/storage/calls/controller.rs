//! What the sidecars ask csi-controller.

use proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use proto::csi::v1::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerModifyVolumeRequest,
    ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest, CreateSnapshotRequest,
    CreateVolumeGroupSnapshotRequest, CreateVolumeRequest, DeleteSnapshotRequest,
    DeleteVolumeGroupSnapshotRequest, DeleteVolumeRequest, VolumeContentSource,
};
use tonic::Status;

use super::{Calls, Map, Snapshot, Usage, Volume};

/// The client moves into each call.
macro_rules! ask {
    ($calls:ident, $client:ident, $call:ident, $request:expr) => {
        $calls.ask($request, |request| {
            let mut client = $calls.$client();
            async move { client.$call(request).await }
        })
    };
}

fn range(bytes: u64) -> Option<CapacityRange> {
    Some(CapacityRange {
        required_bytes: bytes.cast_signed(),
        limit_bytes: 0,
    })
}

/// Strings of a request.
pub(super) fn map(pairs: &[(&str, &str)]) -> Map {
    let owned = pairs
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()));
    owned.collect()
}

impl Calls {
    /// CreateVolume, blank; to be used with ext4 by one node, unless told otherwise by [`Volume::with`].
    ///
    /// # Errors
    /// The answer.
    pub async fn create(
        &self,
        name: &str,
        bytes: u64,
        parameters: &[(&str, &str)],
    ) -> Result<Volume, Status> {
        self.create_from(name, bytes, parameters, None, Usage::files("ext4"))
            .await
    }

    /// CreateVolume, blank, for that usage.
    ///
    /// # Errors
    /// The answer.
    pub async fn create_for(&self, name: &str, bytes: u64, usage: Usage) -> Result<Volume, Status> {
        self.create_from(name, bytes, &[], None, usage).await
    }

    /// CreateVolume, blank, with parameters and for that usage.
    ///
    /// # Errors
    /// The answer.
    pub async fn create_with(
        &self,
        name: &str,
        bytes: u64,
        parameters: &[(&str, &str)],
        usage: Usage,
    ) -> Result<Volume, Status> {
        self.create_from(name, bytes, parameters, None, usage).await
    }

    /// CreateVolume from a snapshot.
    ///
    /// # Errors
    /// The answer.
    pub async fn restore(
        &self,
        name: &str,
        from: &Snapshot,
        bytes: u64,
        usage: Usage,
    ) -> Result<Volume, Status> {
        let snapshot_id = from.id.clone();
        let source = Type::Snapshot(SnapshotSource { snapshot_id });
        self.create_from(name, bytes, &[], Some(source), usage)
            .await
    }

    /// CreateVolume from a volume, to be used alike.
    ///
    /// # Errors
    /// The answer.
    pub async fn clone_of(&self, name: &str, from: &Volume, bytes: u64) -> Result<Volume, Status> {
        let volume_id = from.id.clone();
        let source = Type::Volume(VolumeSource { volume_id });
        self.create_from(name, bytes, &[], Some(source), from.usage.clone())
            .await
    }

    async fn create_from(
        &self,
        name: &str,
        bytes: u64,
        parameters: &[(&str, &str)],
        source: Option<Type>,
        usage: Usage,
    ) -> Result<Volume, Status> {
        let request = CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: range(bytes),
            volume_capabilities: vec![usage.capability()],
            parameters: map(parameters),
            secrets: self.secrets(),
            volume_content_source: source.map(|source| VolumeContentSource {
                r#type: Some(source),
            }),
            ..CreateVolumeRequest::default()
        };
        let made = ask!(self, controller, create_volume, request).await?;
        let made = made.volume.unwrap_or_default();
        Ok(Volume {
            id: made.volume_id,
            bytes: made.capacity_bytes.cast_unsigned(),
            context: made.volume_context,
            usage,
        })
    }

    /// DeleteVolume.
    ///
    /// # Errors
    /// The answer.
    pub async fn delete(&self, volume: &Volume) -> Result<(), Status> {
        let request = DeleteVolumeRequest {
            volume_id: volume.id.clone(),
            secrets: self.secrets(),
        };
        ask!(self, controller, delete_volume, request)
            .await
            .map(drop)
    }

    /// ControllerPublishVolume: its publish context.
    ///
    /// # Errors
    /// The answer.
    pub async fn publish(&self, volume: &Volume, host: usize) -> Result<Map, Status> {
        let request = ControllerPublishVolumeRequest {
            volume_id: volume.id.clone(),
            node_id: self.name(host).to_owned(),
            volume_capability: Some(volume.usage.capability()),
            readonly: volume.usage.read_only,
            secrets: self.secrets(),
            volume_context: volume.context.clone(),
        };
        let answer = ask!(self, controller, controller_publish_volume, request).await?;
        Ok(answer.publish_context)
    }

    /// ControllerUnpublishVolume.
    ///
    /// # Errors
    /// The answer.
    pub async fn unpublish(&self, volume: &Volume, host: usize) -> Result<(), Status> {
        let request = ControllerUnpublishVolumeRequest {
            volume_id: volume.id.clone(),
            node_id: self.name(host).to_owned(),
            secrets: self.secrets(),
        };
        ask!(self, controller, controller_unpublish_volume, request)
            .await
            .map(drop)
    }

    /// ControllerExpandVolume: its size then.
    ///
    /// # Errors
    /// The answer.
    pub async fn expand(&self, volume: &Volume, bytes: u64) -> Result<u64, Status> {
        let request = ControllerExpandVolumeRequest {
            volume_id: volume.id.clone(),
            capacity_range: range(bytes),
            secrets: self.secrets(),
            volume_capability: Some(volume.usage.capability()),
        };
        let answer = ask!(self, controller, controller_expand_volume, request).await?;
        Ok(answer.capacity_bytes.cast_unsigned())
    }

    /// ControllerModifyVolume, as a VolumeAttributesClass with these parameters.
    ///
    /// # Errors
    /// The answer.
    pub async fn modify(&self, volume: &Volume, parameters: &[(&str, &str)]) -> Result<(), Status> {
        let request = ControllerModifyVolumeRequest {
            volume_id: volume.id.clone(),
            secrets: self.secrets(),
            mutable_parameters: map(parameters),
        };
        ask!(self, controller, controller_modify_volume, request)
            .await
            .map(drop)
    }

    /// CreateSnapshot.
    ///
    /// # Errors
    /// The answer.
    pub async fn snapshot(&self, name: &str, of: &Volume) -> Result<Snapshot, Status> {
        let request = CreateSnapshotRequest {
            source_volume_id: of.id.clone(),
            name: name.to_owned(),
            secrets: self.secrets(),
            ..CreateSnapshotRequest::default()
        };
        let answer = ask!(self, controller, create_snapshot, request).await?;
        Ok(snapshot(answer.snapshot.unwrap_or_default()))
    }

    /// DeleteSnapshot.
    ///
    /// # Errors
    /// The answer.
    pub async fn delete_snapshot(&self, it: &Snapshot) -> Result<(), Status> {
        let request = DeleteSnapshotRequest {
            snapshot_id: it.id.clone(),
            secrets: self.secrets(),
        };
        ask!(self, controller, delete_snapshot, request)
            .await
            .map(drop)
    }

    /// CreateVolumeGroupSnapshot: the group's id, and a snapshot for each member, in the order of `of`.
    ///
    /// # Errors
    /// The answer.
    pub async fn group(
        &self,
        name: &str,
        of: &[&Volume],
    ) -> Result<(String, Vec<Snapshot>), Status> {
        let request = CreateVolumeGroupSnapshotRequest {
            name: name.to_owned(),
            source_volume_ids: of.iter().map(|volume| volume.id.clone()).collect(),
            secrets: self.secrets(),
            ..CreateVolumeGroupSnapshotRequest::default()
        };
        let answer = ask!(self, groups, create_volume_group_snapshot, request).await?;
        let group = answer.group_snapshot.unwrap_or_default();
        let member = |volume: &&Volume| {
            let mut all = group.snapshots.iter();
            let found = all.find(|one| one.source_volume_id == volume.id);
            let none = || Status::internal(format!("the group has no snapshot of {}", volume.id));
            found.cloned().map(snapshot).ok_or_else(none)
        };
        let members = of.iter().map(member).collect::<Result<_, _>>()?;
        Ok((group.group_snapshot_id, members))
    }

    /// DeleteVolumeGroupSnapshot.
    ///
    /// # Errors
    /// The answer.
    pub async fn delete_group(&self, id: &str, members: &[Snapshot]) -> Result<(), Status> {
        let request = DeleteVolumeGroupSnapshotRequest {
            group_snapshot_id: id.to_owned(),
            snapshot_ids: members.iter().map(|member| member.id.clone()).collect(),
            secrets: self.secrets(),
        };
        ask!(self, groups, delete_volume_group_snapshot, request)
            .await
            .map(drop)
    }
}

fn snapshot(made: proto::csi::v1::Snapshot) -> Snapshot {
    Snapshot {
        id: made.snapshot_id,
        bytes: made.size_bytes.cast_unsigned(),
    }
}
