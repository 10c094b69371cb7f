//! CSI GroupController: snapshots of several volumes at one moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use framework::{Error, GroupId, GroupSnapshot};
use proto::csi::v1::group_controller_server::GroupController;
use proto::csi::v1::group_controller_service_capability::rpc::Type as Rpc;
use proto::csi::v1::group_controller_service_capability::{self, Type};
use proto::csi::v1::{
    CreateVolumeGroupSnapshotRequest, CreateVolumeGroupSnapshotResponse,
    DeleteVolumeGroupSnapshotRequest, DeleteVolumeGroupSnapshotResponse,
    GetVolumeGroupSnapshotRequest, GetVolumeGroupSnapshotResponse,
    GroupControllerGetCapabilitiesRequest, GroupControllerGetCapabilitiesResponse,
    GroupControllerServiceCapability, VolumeGroupSnapshot,
};
use proto::deadline::Deadline;
use tonic::{Request, Response};

use crate::backends::Served;
use crate::call::call;
use crate::controller::snapshot;
use crate::driver::Driver;
use crate::request::source::unknown;
use crate::request::{id, invalid, map, missing, parameters};
use crate::status::{self, Answer};

const ID: &str = "the id that CreateVolumeGroupSnapshot answered";

/// The service.
pub(crate) struct Service(pub(crate) Arc<Driver>);

#[tonic::async_trait]
impl GroupController for Service {
    async fn group_controller_get_capabilities(
        &self,
        request: Request<GroupControllerGetCapabilitiesRequest>,
    ) -> Answer<Response<GroupControllerGetCapabilitiesResponse>> {
        call!(self, request, reads "GroupControllerGetCapabilities" [] [], capabilities)
    }

    async fn create_volume_group_snapshot(
        &self,
        request: Request<CreateVolumeGroupSnapshotRequest>,
    ) -> Answer<Response<CreateVolumeGroupSnapshotResponse>> {
        call!(self, request, changes "CreateVolumeGroupSnapshot" [name] [], create)
    }

    async fn delete_volume_group_snapshot(
        &self,
        request: Request<DeleteVolumeGroupSnapshotRequest>,
    ) -> Answer<Response<DeleteVolumeGroupSnapshotResponse>> {
        call!(self, request, changes "DeleteVolumeGroupSnapshot" [group_snapshot_id] [], delete)
    }

    async fn get_volume_group_snapshot(
        &self,
        request: Request<GetVolumeGroupSnapshotRequest>,
    ) -> Answer<Response<GetVolumeGroupSnapshotResponse>> {
        call!(self, request, reads "GetVolumeGroupSnapshot" [group_snapshot_id] [], get)
    }
}

async fn capabilities(
    driver: &Driver,
    _: &GroupControllerGetCapabilitiesRequest,
    _: Deadline,
) -> Answer<GroupControllerGetCapabilitiesResponse> {
    let rpc = Rpc::CreateDeleteGetVolumeGroupSnapshot.into();
    let one = GroupControllerServiceCapability {
        r#type: Some(Type::Rpc(group_controller_service_capability::Rpc {
            r#type: rpc,
        })),
    };
    let there = driver.backends.any().groups;
    Ok(GroupControllerGetCapabilitiesResponse {
        capabilities: there.then_some(one).into_iter().collect(),
    })
}

async fn create(
    driver: &Driver,
    request: &CreateVolumeGroupSnapshotRequest,
    deadline: Deadline,
) -> Answer<CreateVolumeGroupSnapshotResponse> {
    let name = id("name", &request.name, "a name of 1 to 128 bytes")?;
    map("secrets", &request.secrets)?;
    parameters::none(&request.parameters)?;
    let field = "source_volume_ids";
    let mut members = Vec::new();
    let mut chosen: Option<&Served> = None;
    for (n, volume) in request.source_volume_ids.iter().enumerate() {
        let field = format!("{field}[{n}]");
        let volume = id(&field, volume, "the id that CreateVolume answered")?;
        let (served, id) = driver
            .locate(volume)
            .ok_or_else(|| unknown(&field, volume))?;
        if members.contains(&id) {
            return Err(invalid(format!(
                "{field}: {id} is there twice; leave one out"
            )));
        }
        let backend = served.backend.name();
        if chosen.is_some_and(|other| other.backend.name() != backend) {
            return Err(invalid(format!(
                "{field}: {id} is in another backend than the others; a group is of one"
            )));
        }
        if !served.backend.capabilities().groups {
            return Err(invalid(format!(
                "{field}: backend {backend} has no group snapshots"
            )));
        }
        chosen = Some(served);
        members.push(id);
    }
    let served = chosen.ok_or_else(|| missing(field, "at least one volume"))?;
    let _held = driver
        .locks
        .lock(
            format!("group snapshot named {name:?}"),
            "CreateVolumeGroupSnapshot",
            deadline,
        )
        .await?;
    let group = served
        .backend
        .group_snapshot(name, &members)
        .await
        .map_err(status::of)?;
    Ok(CreateVolumeGroupSnapshotResponse {
        group_snapshot: Some(message(&group)),
    })
}

async fn delete(
    driver: &Driver,
    request: &DeleteVolumeGroupSnapshotRequest,
    deadline: Deadline,
) -> Answer<DeleteVolumeGroupSnapshotResponse> {
    let id = id("group_snapshot_id", &request.group_snapshot_id, ID)?;
    check_members(&request.snapshot_ids)?;
    map("secrets", &request.secrets)?;
    let done = Ok(DeleteVolumeGroupSnapshotResponse {});
    let Some((served, id)) = locate(driver, id) else {
        return done;
    };
    let _held = driver
        .locks
        .lock(id.to_string(), "DeleteVolumeGroupSnapshot", deadline)
        .await?;
    match served.backend.get_group_snapshot(&id).await {
        Ok(group) => same_members(&group, &request.snapshot_ids)?,
        Err(Error::NotFound { .. }) => return done,
        Err(why) => return Err(status::of(why)),
    }
    served
        .backend
        .delete_group_snapshot(&id)
        .await
        .map_err(status::of)?;
    done
}

async fn get(
    driver: &Driver,
    request: &GetVolumeGroupSnapshotRequest,
    _: Deadline,
) -> Answer<GetVolumeGroupSnapshotResponse> {
    let id = id("group_snapshot_id", &request.group_snapshot_id, ID)?;
    check_members(&request.snapshot_ids)?;
    map("secrets", &request.secrets)?;
    let (served, id) = locate(driver, id).ok_or_else(|| unknown("group_snapshot_id", id))?;
    let group = served
        .backend
        .get_group_snapshot(&id)
        .await
        .map_err(status::of)?;
    same_members(&group, &request.snapshot_ids)?;
    Ok(GetVolumeGroupSnapshotResponse {
        group_snapshot: Some(message(&group)),
    })
}

fn locate<'a>(driver: &'a Driver, id: &str) -> Option<(&'a Served, GroupId)> {
    let id: GroupId = id.parse().ok()?;
    Some((driver.backends.of_id(id.backend())?, id))
}

fn check_members(ids: &[String]) -> Answer<()> {
    for (n, one) in ids.iter().enumerate() {
        id(&format!("snapshot_ids[{n}]"), one, "the id of a member")?;
    }
    Ok(())
}

/// The caller's list, where it gives one, is the group's.
fn same_members(group: &GroupSnapshot, ids: &[String]) -> Answer<()> {
    let has: BTreeSet<String> = group
        .snapshots
        .iter()
        .map(|one| String::from(one.id.clone()))
        .collect();
    let given: BTreeSet<String> = ids.iter().cloned().collect();
    if given.is_empty() || given == has {
        return Ok(());
    }
    let differs = given
        .symmetric_difference(&has)
        .next()
        .cloned()
        .unwrap_or_default();
    Err(invalid(format!(
        "snapshot_ids are not the members of {}: {differs} differs; read the group again",
        group.id
    )))
}

fn message(group: &GroupSnapshot) -> VolumeGroupSnapshot {
    VolumeGroupSnapshot {
        group_snapshot_id: String::from(group.id.clone()),
        snapshots: group.snapshots.iter().map(snapshot::message).collect(),
        creation_time: Some(snapshot::timestamp(group.created_ms)),
        ready_to_use: true,
    }
}
