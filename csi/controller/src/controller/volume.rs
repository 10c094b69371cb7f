//! A volume as CSI has it; ControllerGetVolume.

use api::storage::volume_context::CLAIM;
use framework::{Source, Volume};
use proto::csi::v1::controller_get_volume_response::VolumeStatus;
use proto::csi::v1::volume_content_source::{self, SnapshotSource, VolumeSource};
use proto::csi::v1::{
    ControllerGetVolumeRequest, ControllerGetVolumeResponse, VolumeContentSource,
};
use proto::deadline::Deadline;

use crate::backends::Served;
use crate::driver::Driver;
use crate::request::capacity::signed;
use crate::request::parameters::{Class, Parameters};
use crate::request::{topology, volume_id};
use crate::status::Answer;

/// The volume with the nodes that have it.
pub(super) async fn get(
    driver: &Driver,
    request: &ControllerGetVolumeRequest,
    _: Deadline,
) -> Answer<ControllerGetVolumeResponse> {
    let found = driver.volume(volume_id(&request.volume_id)?).await?;
    Ok(ControllerGetVolumeResponse {
        volume: Some(message(driver, found.served, &found.volume)),
        status: Some(VolumeStatus {
            published_node_ids: found.volume.hosts.clone(),
        }),
    })
}

/// The volume as CSI has it.
pub(super) fn message(driver: &Driver, served: &Served, volume: &Volume) -> proto::csi::v1::Volume {
    let record = driver.records.get(&volume.name);
    let (parameters, claim) = record
        .map(|record| (record.parameters, record.claim))
        .unwrap_or_default();
    // They were accepted once; what an older version accepted and this one does not, has no effect.
    let class = Class::new(&parameters.unwrap_or_default(), &Parameters::new());
    let mut context = class.map(|class| class.context).unwrap_or_default();
    context.extend(claim.map(|claim| (CLAIM.to_owned(), claim)));
    let content = match &volume.source {
        Source::Blank => None,
        Source::Snapshot(id) => {
            let snapshot_id = String::from(id.clone());
            Some(volume_content_source::Type::Snapshot(SnapshotSource {
                snapshot_id,
            }))
        }
        Source::Volume(id) => {
            let volume_id = String::from(id.clone());
            Some(volume_content_source::Type::Volume(VolumeSource {
                volume_id,
            }))
        }
    };
    proto::csi::v1::Volume {
        capacity_bytes: signed(volume.size),
        volume_id: String::from(volume.id.clone()),
        volume_context: context,
        content_source: content.map(|one| VolumeContentSource { r#type: Some(one) }),
        accessible_topology: topology::accessible(&served.topology),
    }
}
