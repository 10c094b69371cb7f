//! CreateSnapshot, DeleteSnapshot, GetSnapshot.

use framework::{Snapshot, SnapshotId};
use proto::csi::v1::{
    CreateSnapshotRequest, CreateSnapshotResponse, DeleteSnapshotRequest, DeleteSnapshotResponse,
    GetSnapshotRequest, GetSnapshotResponse,
};
use proto::deadline::Deadline;

use crate::backends::Served;
use crate::driver::Driver;
use crate::request::source::unknown;
use crate::request::{capacity::signed, id, invalid, map, parameters};
use crate::status::{self, Answer};

const ID: &str = "the id that CreateSnapshot answered";

/// Takes a snapshot, or answers the one of that name if it is of that volume.
pub(super) async fn create(
    driver: &Driver,
    request: &CreateSnapshotRequest,
    deadline: Deadline,
) -> Answer<CreateSnapshotResponse> {
    let name = id("name", &request.name, "a name of 1 to 128 bytes")?;
    let source = id(
        "source_volume_id",
        &request.source_volume_id,
        "the id that CreateVolume answered",
    )?;
    map("secrets", &request.secrets)?;
    parameters::none(&request.parameters)?;
    let (served, source) = driver
        .locate(source)
        .ok_or_else(|| unknown("source_volume_id", source))?;
    if !served.backend.capabilities().snapshots {
        return Err(invalid(format!(
            "source_volume_id: backend {} has no snapshots",
            served.backend.name()
        )));
    }
    let _held = driver
        .locks
        .lock(
            format!("snapshot named {name:?}"),
            "CreateSnapshot",
            deadline,
        )
        .await?;
    let snapshot = served
        .backend
        .snapshot(name, &source)
        .await
        .map_err(status::of)?;
    Ok(CreateSnapshotResponse {
        snapshot: Some(message(&snapshot)),
    })
}

/// Deletes a snapshot. One that is not there: OK. A member of a group: INVALID_ARGUMENT.
pub(super) async fn delete(
    driver: &Driver,
    request: &DeleteSnapshotRequest,
    deadline: Deadline,
) -> Answer<DeleteSnapshotResponse> {
    let id = id("snapshot_id", &request.snapshot_id, ID)?;
    map("secrets", &request.secrets)?;
    if let Some((served, id)) = locate(driver, id) {
        let _held = driver
            .locks
            .lock(id.to_string(), "DeleteSnapshot", deadline)
            .await?;
        served
            .backend
            .delete_snapshot(&id)
            .await
            .map_err(status::of)?;
    }
    Ok(DeleteSnapshotResponse {})
}

/// One snapshot.
pub(super) async fn get(
    driver: &Driver,
    request: &GetSnapshotRequest,
    _: Deadline,
) -> Answer<GetSnapshotResponse> {
    let id = id("snapshot_id", &request.snapshot_id, ID)?;
    map("secrets", &request.secrets)?;
    let (served, id) = locate(driver, id).ok_or_else(|| unknown("snapshot_id", id))?;
    let snapshot = served.backend.get_snapshot(&id).await.map_err(status::of)?;
    Ok(GetSnapshotResponse {
        snapshot: Some(message(&snapshot)),
    })
}

fn locate<'a>(driver: &'a Driver, id: &str) -> Option<(&'a Served, SnapshotId)> {
    let id: SnapshotId = id.parse().ok()?;
    Some((driver.backends.of_id(id.backend())?, id))
}

/// The snapshot as CSI has it. It can be used as soon as it exists.
pub(crate) fn message(snapshot: &Snapshot) -> proto::csi::v1::Snapshot {
    proto::csi::v1::Snapshot {
        size_bytes: signed(snapshot.size),
        snapshot_id: String::from(snapshot.id.clone()),
        source_volume_id: String::from(snapshot.volume.clone()),
        creation_time: Some(timestamp(snapshot.created_ms)),
        ready_to_use: true,
        group_snapshot_id: snapshot.group.clone().map(String::from).unwrap_or_default(),
        // Empty: where it can be used is where its volume can (SNAPSHOT_ACCESSIBILITY_CONSTRAINTS is not announced).
        accessible_topology: Vec::new(),
    }
}

/// Milliseconds since 1970 as a protobuf timestamp.
pub(crate) fn timestamp(ms: u64) -> prost_types::Timestamp {
    let nanos = i32::try_from(ms % 1000 * 1_000_000).unwrap_or_default();
    prost_types::Timestamp {
        seconds: signed(ms / 1000),
        nanos,
    }
}
