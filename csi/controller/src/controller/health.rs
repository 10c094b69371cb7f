//! ControllerGetVolumeHealth: how a volume is, at its target and at every node that has it.

use framework::Health;
use proto::attacher::v1::State;
use proto::csi::v1::volume_health::VolumeHealthEntry;
use proto::csi::v1::{
    ControllerGetVolumeHealthRequest, ControllerGetVolumeHealthResponse, VolumeHealth,
    VolumeHealthErrorType,
};
use proto::deadline::Deadline;
use tonic::Code;

use crate::driver::{Driver, Found};
use crate::request::{map, volume_id};
use crate::status::{self, Answer};

/// What is wrong with a volume: at most one entry for the target and one for all nodes.
pub(super) async fn get(
    driver: &Driver,
    request: &ControllerGetVolumeHealthRequest,
    deadline: Deadline,
) -> Answer<ControllerGetVolumeHealthResponse> {
    let id = volume_id(&request.volume_id)?;
    map("secrets", &request.secrets)?;
    let found = driver.volume(id).await?;
    let health = found
        .backend()
        .health(&found.volume.id)
        .await
        .map_err(status::of)?;
    let at_target = match health {
        Health::Normal => Vec::new(),
        Health::Abnormal(sentence) => vec![sentence],
    };
    let mut at_nodes = Vec::new();
    for node in &found.volume.hosts {
        at_nodes.extend(at_node(driver, &found, node, deadline.half()).await);
    }
    let wrong = [("AtTarget", at_target), ("AtNode", at_nodes)];
    let entries = wrong.into_iter().filter(|(_, wrong)| !wrong.is_empty());
    Ok(ControllerGetVolumeHealthResponse {
        volume_health: Some(VolumeHealth {
            volume_id: id.to_owned(),
            health_statuses: entries
                .map(|(reason, wrong)| entry(reason, &wrong))
                .collect(),
        }),
    })
}

/// DEGRADED, the least that can be said: a back end does not say how bad it is, and INACCESSIBLE would mean "from every node".
fn entry(reason: &str, wrong: &[String]) -> VolumeHealthEntry {
    VolumeHealthEntry {
        status: VolumeHealthErrorType::Degraded.into(),
        reason: reason.to_owned(),
        message: wrong.join("; "),
    }
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
