//! CSI Controller: which function does which call.

mod capacity;
mod context;
mod create;
mod delete;
mod expand;
mod health;
pub(crate) mod list;
mod modify;
mod publish;
pub(crate) mod snapshot;
mod unpublish;
mod validate;
mod volume;

use std::sync::Arc;

use proto::csi::v1::controller_server::Controller;
use proto::csi::v1::controller_service_capability::rpc::Type as Rpc;
use proto::csi::v1::controller_service_capability::{self, Type};
use proto::csi::v1::{
    ControllerExpandVolumeRequest, ControllerExpandVolumeResponse,
    ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse,
    ControllerGetVolumeHealthRequest, ControllerGetVolumeHealthResponse,
    ControllerGetVolumeRequest, ControllerGetVolumeResponse, ControllerListVolumeHealthRequest,
    ControllerListVolumeHealthResponse, ControllerModifyVolumeRequest,
    ControllerModifyVolumeResponse, ControllerPublishVolumeRequest,
    ControllerPublishVolumeResponse, ControllerServiceCapability, ControllerUnpublishVolumeRequest,
    ControllerUnpublishVolumeResponse, CreateSnapshotRequest, CreateSnapshotResponse,
    CreateVolumeRequest, CreateVolumeResponse, DeleteSnapshotRequest, DeleteSnapshotResponse,
    DeleteVolumeRequest, DeleteVolumeResponse, GetCapacityRequest, GetCapacityResponse,
    GetSnapshotRequest, GetSnapshotResponse, ListSnapshotsRequest, ListSnapshotsResponse,
    ListVolumesRequest, ListVolumesResponse, ValidateVolumeCapabilitiesRequest,
    ValidateVolumeCapabilitiesResponse,
};
use proto::deadline::Deadline;
use tonic::{Request, Response, Status};

use crate::call::call;
use crate::driver::Driver;
use crate::status::Answer;

/// The service.
pub(crate) struct Service(pub(crate) Arc<Driver>);

#[tonic::async_trait]
impl Controller for Service {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Answer<Response<CreateVolumeResponse>> {
        call!(self, request, changes "CreateVolume" [name] [], create::create)
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Answer<Response<DeleteVolumeResponse>> {
        call!(self, request, changes "DeleteVolume" [volume_id] [], delete::delete)
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Answer<Response<ControllerPublishVolumeResponse>> {
        call!(self, request, changes "ControllerPublishVolume" [volume_id] [node_id], publish::publish)
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Answer<Response<ControllerUnpublishVolumeResponse>> {
        call!(self, request, changes "ControllerUnpublishVolume" [volume_id] [node_id], unpublish::unpublish)
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<Response<ValidateVolumeCapabilitiesResponse>> {
        call!(self, request, reads "ValidateVolumeCapabilities" [volume_id] [], validate::validate)
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Answer<Response<ListVolumesResponse>> {
        call!(self, request, reads "ListVolumes" [] [], list::volumes)
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Answer<Response<GetCapacityResponse>> {
        call!(self, request, reads "GetCapacity" [] [], capacity::capacity)
    }

    async fn controller_get_capabilities(
        &self,
        request: Request<ControllerGetCapabilitiesRequest>,
    ) -> Answer<Response<ControllerGetCapabilitiesResponse>> {
        call!(self, request, reads "ControllerGetCapabilities" [] [], capabilities)
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Answer<Response<CreateSnapshotResponse>> {
        call!(self, request, changes "CreateSnapshot" [name] [], snapshot::create)
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Answer<Response<DeleteSnapshotResponse>> {
        call!(self, request, changes "DeleteSnapshot" [snapshot_id] [], snapshot::delete)
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Answer<Response<ListSnapshotsResponse>> {
        call!(self, request, reads "ListSnapshots" [] [], list::snapshots)
    }

    async fn get_snapshot(
        &self,
        request: Request<GetSnapshotRequest>,
    ) -> Answer<Response<GetSnapshotResponse>> {
        call!(self, request, reads "GetSnapshot" [snapshot_id] [], snapshot::get)
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Answer<Response<ControllerExpandVolumeResponse>> {
        call!(self, request, changes "ControllerExpandVolume" [volume_id] [], expand::expand)
    }

    async fn controller_get_volume(
        &self,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Answer<Response<ControllerGetVolumeResponse>> {
        call!(self, request, reads "ControllerGetVolume" [volume_id] [], volume::get)
    }

    async fn controller_get_volume_health(
        &self,
        request: Request<ControllerGetVolumeHealthRequest>,
    ) -> Answer<Response<ControllerGetVolumeHealthResponse>> {
        call!(self, request, reads "ControllerGetVolumeHealth" [volume_id] [], health::get)
    }

    /// Not announced (LIST_VOLUME_HEALTH): a list of what is not well would have to ask every node about each of its volumes.
    async fn controller_list_volume_health(
        &self,
        _: Request<ControllerListVolumeHealthRequest>,
    ) -> Answer<Response<ControllerListVolumeHealthResponse>> {
        Err(Status::unimplemented(
            "ControllerListVolumeHealth is not announced (LIST_VOLUME_HEALTH); ask ControllerGetVolumeHealth for a volume",
        ))
    }

    async fn controller_modify_volume(
        &self,
        request: Request<ControllerModifyVolumeRequest>,
    ) -> Answer<Response<ControllerModifyVolumeResponse>> {
        call!(self, request, changes "ControllerModifyVolume" [volume_id] [], modify::modify)
    }
}

/// What is really there. LIST_VOLUMES_PUBLISHED_NODES, since the backends' exports are durable and complete: a host
/// without one has no access.
async fn capabilities(
    driver: &Driver,
    _: &ControllerGetCapabilitiesRequest,
    _: Deadline,
) -> Answer<ControllerGetCapabilitiesResponse> {
    let any = driver.backends.any();
    let mut all = vec![
        Rpc::CreateDeleteVolume,
        Rpc::PublishUnpublishVolume,
        Rpc::PublishReadonly,
        Rpc::ListVolumes,
        Rpc::ListVolumesPublishedNodes,
        Rpc::GetVolume,
        Rpc::GetVolumeHealth,
        Rpc::GetCapacity,
        Rpc::SingleNodeMultiWriter,
    ];
    for (there, rpcs) in [
        (
            any.snapshots,
            [
                Rpc::CreateDeleteSnapshot,
                Rpc::ListSnapshots,
                Rpc::GetSnapshot,
            ]
            .as_slice(),
        ),
        (any.clones, &[Rpc::CloneVolume]),
        (any.expand, &[Rpc::ExpandVolume]),
        (any.qos, &[Rpc::ModifyVolume]),
    ] {
        if there {
            all.extend(rpcs);
        }
    }
    let all = all.into_iter().map(|rpc| ControllerServiceCapability {
        r#type: Some(Type::Rpc(controller_service_capability::Rpc {
            r#type: rpc.into(),
        })),
    });
    Ok(ControllerGetCapabilitiesResponse {
        capabilities: all.collect(),
    })
}
