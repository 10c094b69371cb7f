//! ControllerModifyVolume.

use proto::csi::v1::{ControllerModifyVolumeRequest, ControllerModifyVolumeResponse};
use proto::deadline::Deadline;

use crate::driver::Driver;
use crate::request::parameters::Limits;
use crate::request::{invalid, map, volume_id};
use crate::status::{self, Answer};

/// Changes the limits that are named, all or none of them.
pub(super) async fn modify(
    driver: &Driver,
    request: &ControllerModifyVolumeRequest,
    deadline: Deadline,
) -> Answer<ControllerModifyVolumeResponse> {
    let id = volume_id(&request.volume_id)?;
    map("secrets", &request.secrets)?;
    let limits = Limits::new(&request.mutable_parameters)?;
    let (_, known) = driver
        .locate(id)
        .ok_or_else(|| crate::request::source::unknown("volume_id", id))?;
    let _held = driver
        .locks
        .lock(known.to_string(), "ControllerModifyVolume", deadline)
        .await?;
    let found = driver.volume(id).await?;
    let qos = limits.apply(found.volume.qos)?;
    if qos != found.volume.qos {
        if !found.capabilities().qos {
            return Err(invalid(format!(
                "mutable_parameters: backend {} has no limits",
                found.backend().name()
            )));
        }
        found
            .backend()
            .modify(&found.volume.id, qos)
            .await
            .map_err(status::of)?;
    }
    Ok(ControllerModifyVolumeResponse {})
}
