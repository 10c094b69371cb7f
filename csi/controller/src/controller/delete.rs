//! DeleteVolume.

use framework::Error;
use proto::csi::v1::{DeleteVolumeRequest, DeleteVolumeResponse};
use proto::deadline::Deadline;

use crate::driver::Driver;
use crate::request::{map, volume_id};
use crate::status::{self, Answer};

/// Deletes a volume. One that is not there: OK. One that is published: FAILED_PRECONDITION.
pub(super) async fn delete(
    driver: &Driver,
    request: &DeleteVolumeRequest,
    deadline: Deadline,
) -> Answer<DeleteVolumeResponse> {
    let id = volume_id(&request.volume_id)?;
    map("secrets", &request.secrets)?;
    let Some((served, id)) = driver.locate(id) else {
        return Ok(DeleteVolumeResponse {});
    };
    let _held = driver
        .locks
        .lock(id.to_string(), "DeleteVolume", deadline)
        .await?;
    let volume = match served.backend.get(&id).await {
        Ok(volume) => volume,
        Err(Error::NotFound { .. }) => return Ok(DeleteVolumeResponse {}),
        Err(why) => return Err(status::of(why)),
    };
    served.backend.delete(&id).await.map_err(status::of)?;
    fail::fail_point!("delete::deleted");
    driver.records.remove(&volume.name).await?;
    Ok(DeleteVolumeResponse {})
}
