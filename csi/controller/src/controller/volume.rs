//! A volume as CSI has it; ControllerGetVolume.

use framework::{Health, Source, Volume};
use proto::attacher::v1::State;
use proto::csi::v1::controller_get_volume_response::VolumeStatus;
use proto::csi::v1::volume_content_source::{self, SnapshotSource, VolumeSource};
use proto::csi::v1::{
    ControllerGetVolumeRequest, ControllerGetVolumeResponse, VolumeCondition, VolumeContentSource,
};
use tonic::Code;

use crate::backends::Served;
use crate::deadline::Deadline;
use crate::driver::{Driver, Found};
use crate::request::capacity::signed;
use crate::request::parameters::{Class, Parameters};
use crate::request::{topology, volume_id};
use crate::status::{self, Answer};

/// The volume with how it is, here and at every node that has it.
pub(super) async fn get(
    driver: &Driver,
    request: &ControllerGetVolumeRequest,
    deadline: Deadline,
) -> Answer<ControllerGetVolumeResponse> {
    let found = driver.volume(volume_id(&request.volume_id)?).await?;
    let health = found
        .backend()
        .health(&found.volume.id)
        .await
        .map_err(status::of)?;
    let mut wrong: Vec<String> = match health {
        Health::Normal => Vec::new(),
        Health::Abnormal(sentence) => vec![sentence],
    };
    for node in &found.volume.hosts {
        wrong.extend(at_node(driver, &found, node, deadline.half()).await);
    }
    let status = VolumeStatus {
        published_node_ids: found.volume.hosts.clone(),
        volume_condition: Some(condition(&wrong)),
    };
    Ok(ControllerGetVolumeResponse {
        volume: Some(message(driver, found.served, &found.volume)),
        status: Some(status),
    })
}

/// What is wrong with the volume at a node.
async fn at_node(
    driver: &Driver,
    found: &Found<'_>,
    node: &str,
    deadline: Deadline,
) -> Option<String> {
    let node = match driver.nodes.get(node).await {
        Ok(node) => node,
        Err(why) => return Some(why.message().to_owned()),
    };
    match driver.dpus.health(&node, &found.uuid(), deadline).await {
        Ok(answer) => {
            let volume = answer.volume.unwrap_or_default();
            let sound = matches!(volume.state(), State::Attached | State::Attaching);
            (!sound).then(|| {
                format!(
                    "at node {}: {} ({})",
                    node.id,
                    volume.message,
                    volume.state().as_str_name()
                )
            })
        }
        Err(why) if why.code() == Code::NotFound => Some(format!(
            "at node {}: it is published there, but not attached; publish it again",
            node.id
        )),
        Err(why) => Some(format!(
            "at node {}: unknown: {}",
            node.id,
            status::of_node(&node.id, &why).message()
        )),
    }
}

/// The condition that some sentences make.
pub(super) fn condition(wrong: &[String]) -> VolumeCondition {
    let message = if wrong.is_empty() {
        "nothing is wrong".to_owned()
    } else {
        wrong.join("; ")
    };
    VolumeCondition {
        abnormal: !wrong.is_empty(),
        message,
    }
}

/// The volume as CSI has it.
pub(super) fn message(driver: &Driver, served: &Served, volume: &Volume) -> proto::csi::v1::Volume {
    let record = driver.records.get(&volume.name);
    let parameters = record
        .and_then(|record| record.parameters)
        .unwrap_or_default();
    // They were accepted once; what an older version accepted and this one does not, has no effect.
    let context = Class::new(&parameters, &Parameters::new()).map(|class| class.context);
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
        volume_context: context.unwrap_or_default(),
        content_source: content.map(|one| VolumeContentSource { r#type: Some(one) }),
        accessible_topology: topology::accessible(&served.topology),
    }
}
