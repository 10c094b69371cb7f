//! ControllerUnpublishVolume: the volume is taken from the host, and the host's access to the target ends.

use std::time::Duration;

use framework::Error;
use proto::csi::v1::{ControllerUnpublishVolumeRequest, ControllerUnpublishVolumeResponse};
use proto::deadline::Deadline;
use tonic::{Code, Status};

use crate::dpu::is_away;
use crate::driver::{Driver, Found};
use crate::request::{map, node_id, volume_id};
use crate::status::{self, Answer};

/// How long the DPU of a node that is out of service is waited for: most likely it is dead, and its volumes are wanted
/// elsewhere.
const GIVEN_UP: Duration = Duration::from_secs(3);

/// After OK no write of the node, or of any node where none is named, reaches the volume. Not published, or volume gone:
/// OK.
pub(super) async fn unpublish(
    driver: &Driver,
    request: &ControllerUnpublishVolumeRequest,
    deadline: Deadline,
) -> Answer<ControllerUnpublishVolumeResponse> {
    let id = volume_id(&request.volume_id)?;
    let node = node_id(&request.node_id)?;
    map("secrets", &request.secrets)?;
    let done = Ok(ControllerUnpublishVolumeResponse {});
    let Some((served, id)) = driver.locate(id) else {
        return done;
    };
    let _held = driver
        .locks
        .lock(id.to_string(), "ControllerUnpublishVolume", deadline)
        .await?;
    let volume = match served.backend.get(&id).await {
        Ok(volume) => volume,
        // It can't have been deleted while it was exported.
        Err(Error::NotFound { .. }) => return done,
        Err(why) => return Err(status::of(why)),
    };
    let nodes = if node.is_empty() {
        volume.hosts.clone()
    } else {
        vec![node.to_owned()]
    };
    let found = Found { served, volume };
    for node in &nodes {
        from(driver, &found, node, deadline).await?;
    }
    done
}

async fn from(driver: &Driver, found: &Found<'_>, node: &str, deadline: Deadline) -> Answer<()> {
    let id = &found.volume.id;
    if found.volume.hosts.iter().any(|host| host == node) {
        driver.records.unpublish(&found.volume.name, node).await?;
        fail::fail_point!("unpublish::recorded");
        detach(driver, found, node, deadline).await?;
        fail::fail_point!("unpublish::detached");
    }
    // Also where nothing is exported: an earlier call may have been cut off.
    found
        .backend()
        .unexport(id, node)
        .await
        .map_err(status::of)?;
    fail::fail_point!("unpublish::unexported");
    Ok(())
}

/// Takes the volume from the host in good order, so that what it has written arrives. A DPU that is away is not waited for:
/// the end of the export is the fence, and the DPU drops what is dead when it is back.
async fn detach(driver: &Driver, found: &Found<'_>, node: &str, deadline: Deadline) -> Answer<()> {
    let Some(node) = driver.nodes.all().await?.get(node).cloned() else {
        tracing::warn!("node {node} is no more: the host is cut off at the target");
        return Ok(());
    };
    let uuid = found.uuid();
    let asked = driver
        .dpus
        .detach(&node, &uuid, node.out_of_service, deadline.half());
    let asked = if node.out_of_service {
        let late = || Status::deadline_exceeded("no answer");
        let asked = tokio::time::timeout(GIVEN_UP, asked).await;
        asked.unwrap_or_else(|_| Err(late()))
    } else {
        asked.await
    };
    match asked {
        Ok(()) => Ok(()),
        // That DPU does not serve the host any more: nothing of it is there.
        Err(why) if why.code() == Code::NotFound => Ok(()),
        Err(why) if node.out_of_service || is_away(&why) => {
            driver.metrics.fenced.inc();
            let why = why.message();
            tracing::warn!(
                "csi-node-dpu of node {} does not answer ({why}): the host is cut off at the target",
                node.id
            );
            Ok(())
        }
        Err(why) => Err(status::of_node(&node.id, &why)),
    }
}
