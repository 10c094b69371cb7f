//! ControllerExpandVolume.

use proto::csi::v1::{ControllerExpandVolumeRequest, ControllerExpandVolumeResponse};
use proto::deadline::Deadline;
use tonic::{Code, Status};

use crate::driver::Driver;
use crate::request::capability::Usage;
use crate::request::{capacity, invalid, map, volume_id};
use crate::status::{self, Answer};

/// Grows the volume, then shows its size to every host that has it. The node grows what lies on it.
pub(super) async fn expand(
    driver: &Driver,
    request: &ControllerExpandVolumeRequest,
    deadline: Deadline,
) -> Answer<ControllerExpandVolumeResponse> {
    let id = volume_id(&request.volume_id)?;
    let size = capacity::wanted(request.capacity_range.as_ref())?;
    map("secrets", &request.secrets)?;
    let usage = request.volume_capability.as_ref();
    let usage = usage
        .map(|one| Usage::new("volume_capability", Some(one)))
        .transpose()?;
    let (_, known) = driver
        .locate(id)
        .ok_or_else(|| crate::request::source::unknown("volume_id", id))?;
    let _held = driver
        .locks
        .lock(known.to_string(), "ControllerExpandVolume", deadline)
        .await?;
    let found = driver.volume(id).await?;
    let can = found.capabilities();
    if let Some(usage) = usage {
        usage.check("volume_capability", can)?;
    }
    if !can.expand {
        return Err(invalid(format!(
            "{}: volumes of backend {} do not grow",
            found.volume.id,
            found.backend().name()
        )));
    }
    if !can.expand_online && !found.volume.hosts.is_empty() && found.volume.size < size.required {
        return Err(Status::failed_precondition(format!(
            "{} is published at node {}, and volumes of backend {} grow only while they are not; take it away first",
            found.volume.id,
            found.volume.hosts.join(", "),
            found.backend().name()
        )));
    }
    let grown = found
        .backend()
        .expand(&found.volume.id, size)
        .await
        .map_err(status::of)?;
    fail::fail_point!("expand::grown");
    let nodes = driver.nodes.all().await?;
    for node in grown.hosts.iter().filter_map(|host| nodes.get(host)) {
        match driver
            .dpus
            .resize(node, &found.uuid(), grown.size, deadline)
            .await
        {
            Ok(()) => {}
            // Exported and not attached yet: it will be with that size.
            Err(why) if why.code() == Code::NotFound => {}
            Err(why) => return Err(status::of_node(&node.id, &why)),
        }
    }
    Ok(ControllerExpandVolumeResponse {
        capacity_bytes: capacity::signed(grown.size),
        node_expansion_required: true,
    })
}
