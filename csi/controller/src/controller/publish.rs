//! ControllerPublishVolume: the volume is exported to the host, then attached there.

use std::time::Instant;

use framework::{Access, Error, Target};
use proto::csi::v1::{ControllerPublishVolumeRequest, ControllerPublishVolumeResponse};
use proto::deadline::Deadline;
use proto::node::v1::{AttachRequest, AttachResponse};
use proto::volume::v1::{ExposureKind, VhostUserBlk};
use tonic::{Code, Status};

use super::context::{ACCEPTABLE, context};
use crate::dpu;
use crate::driver::{Driver, Found};
use crate::nodes::Node;
use crate::places::Place;
use crate::request::capability::Usage;
use crate::request::{map, missing, node_id, parameters, vhost, volume_id};
use crate::status::{self, Answer};

const OP: &str = "ControllerPublishVolume";

/// Makes the volume appear at the node.
pub(super) async fn publish(
    driver: &Driver,
    request: &ControllerPublishVolumeRequest,
    deadline: Deadline,
) -> Answer<ControllerPublishVolumeResponse> {
    let begun = Instant::now();
    let id = volume_id(&request.volume_id)?;
    let node = node_id(&request.node_id)?;
    if node.is_empty() {
        return Err(missing("node_id", "what NodeGetInfo answered"));
    }
    let usage = Usage::new("volume_capability", request.volume_capability.as_ref())?;
    map("secrets", &request.secrets)?;
    map("volume_context", &request.volume_context)?;
    let reconnect = parameters::reconnect(&request.volume_context)?;
    let socket = vhost::wanted(&request.volume_context, &usage)?;
    let (_, known) = driver
        .locate(id)
        .ok_or_else(|| crate::request::source::unknown("volume_id", id))?;
    let _held = driver.locks.lock(known.to_string(), OP, deadline).await?;
    let found = driver.volume(id).await?;
    usage.check("volume_capability", found.capabilities())?;
    let node = driver.nodes.get(node).await?;
    if let Some(why) = &node.refusal {
        return Err(Status::unavailable(format!("node {}: {why}", node.id)));
    }
    let access = usage.access(request.readonly);
    let new = !found.volume.hosts.contains(&node.id);
    // Until the export is made: two volumes at once could both take the last place.
    let place = match node.limit {
        Some(limit) if new => Some(room(driver, &found, &node, limit).await?),
        _ => None,
    };
    if usage.single_writer() && access == Access::ReadWrite {
        no_other_writer(&found, &node).await?;
    }
    if access == Access::ReadWrite {
        settle(driver, &found).await?;
    }
    fail::fail_point!("publish::settled");
    let looked = Instant::now();

    let exported = found
        .backend()
        .export(&found.volume.id, &node.host(), access, usage.multi())
        .await;
    let target = exported.map_err(|why| published_elsewhere(&found, why))?;
    drop(place);
    fail::fail_point!("publish::exported");
    let made = Instant::now();
    let attached = attach(
        driver, &found, &node, &target, access, new, reconnect, socket, deadline,
    )
    .await;
    if let Err(why) = &attached
        && new
        && status::is_final(why.code())
    {
        // Nothing of this publication is left; no other one existed.
        found
            .backend()
            .unexport(&found.volume.id, &node.id)
            .await
            .map_err(status::of)?;
    }
    let attached = attached?;
    fail::fail_point!("publish::attached");
    let there = Instant::now();
    let fresh = driver
        .records
        .publish(&found.volume.name, &node.id, access)
        .await?;
    fail::fail_point!("publish::recorded");
    let publish_context = context(&node, &found.volume, attached.device.as_ref(), fresh)?;
    tell([begun, looked, made, there, Instant::now()]);
    Ok(ControllerPublishVolumeResponse { publish_context })
}

/// Where the time went, from one moment to the next.
fn tell(moments: [Instant; 5]) {
    let ms = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
    let names = ["look", "export", "attach", "record"].iter();
    let stages = names.zip(moments.windows(2));
    let stages = stages.map(|(name, pair)| format!("{name}={:.1}ms", ms(pair[0], pair[1])));
    let stages = stages.collect::<Vec<_>>().join(" ");
    let whole = ms(moments[0], moments[4]);
    tracing::info!(%stages, "published: done in {whole:.1} ms");
}

/// Finds out whether somebody wrote to a volume that was given away and taken back, or to what it was made from: only if
/// nobody did may the next host format it. Now, since no host has it and the volume is ours until this call ends: whatever
/// was written is there, and nothing can come between the answer and the next publication. (While it was taken away the host
/// could write until the fence was up, and the program could die behind it.)
async fn settle(driver: &Driver, found: &Found<'_>) -> Answer<()> {
    let name = &found.volume.name;
    if !found.volume.hosts.is_empty() || !driver.records.is_unsure(name) {
        return Ok(());
    }
    let written = found.backend().written(&found.volume.id).await;
    driver
        .records
        .settle(name, written.map_err(status::of)?)
        .await
}

/// Takes one of the node's places.
async fn room(driver: &Driver, found: &Found<'_>, node: &Node, limit: usize) -> Answer<Place> {
    let place = driver.places.line_up(&node.id, &found.uuid());
    let mut there = Vec::new();
    for served in driver.backends.iter() {
        let page = served.backend.list(0, None).await.map_err(status::of)?;
        let at_node = page
            .items
            .into_iter()
            .filter(|volume| volume.hosts.contains(&node.id));
        there.extend(at_node.map(|volume| volume.id.uuid().to_string()));
    }
    let taken = place.taken(there);
    if taken >= limit {
        return Err(Status::resource_exhausted(format!(
            "node {} has {taken} volumes, and its limit is {limit}; take one away, or use another node",
            node.id
        )));
    }
    Ok(place)
}

async fn no_other_writer(found: &Found<'_>, node: &Node) -> Answer<()> {
    let exports = found
        .backend()
        .exports(&found.volume.id)
        .await
        .map_err(status::of)?;
    let writes =
        |export: &&framework::Export| export.access == Access::ReadWrite && export.host != node.id;
    match exports.iter().find(writes) {
        None => Ok(()),
        Some(other) => Err(Status::failed_precondition(format!(
            "{} is published for writing at node {}, and MULTI_NODE_SINGLE_WRITER allows one; publish it with readonly, or \
             take it away there",
            found.volume.id, other.host
        ))),
    }
}

fn published_elsewhere(found: &Found<'_>, why: Error) -> Status {
    match &why {
        Error::InUse { .. } => Status::failed_precondition(format!(
            "{} is published at node {}; take it away there first, or use an access mode of several nodes",
            found.volume.id,
            found.volume.hosts.join(", ")
        )),
        _ => status::of(why),
    }
}

#[allow(clippy::too_many_arguments, reason = "all of one publication")]
async fn attach(
    driver: &Driver,
    found: &Found<'_>,
    node: &Node,
    target: &Target,
    access: Access,
    new: bool,
    reconnect: u32,
    socket: Option<VhostUserBlk>,
    deadline: Deadline,
) -> Answer<AttachResponse> {
    let uuid = found.uuid();
    let request = AttachRequest {
        id: Some(dpu::id(node, &uuid)),
        volume_id: String::from(found.volume.id.clone()),
        source: Some(dpu::source(target, found.served, reconnect)?),
        read_only: access == Access::ReadOnly,
        size_bytes: found.volume.size,
        serial: framework::identity::serial(found.volume.id.uuid()),
        acceptable: match socket {
            None => ACCEPTABLE.map(Into::into).to_vec(),
            Some(_) => vec![ExposureKind::LocalBlockDevice.into()],
        },
        // The backend has them: they hold for all hosts of the volume together.
        limits: None,
        socket,
    };
    let mut attached = driver.dpus.attach(node, request.clone(), deadline).await;
    if new
        && attached
            .as_ref()
            .is_err_and(|why| why.code() == Code::AlreadyExists)
    {
        // Left from a publication that ended while this DPU was away: its export is gone, so it is dead.
        tracing::info!("an attachment of an earlier publication is in the way and taken away");
        let detached = driver.dpus.detach(node, &uuid, true, deadline).await;
        detached.map_err(|why| status::of_node(&node.id, &why))?;
        attached = driver.dpus.attach(node, request, deadline).await;
    }
    let attached = attached.map_err(|why| status::of_node(&node.id, &why))?;
    let device = attached.device.as_ref();
    if socket.is_some() && device.is_some_and(|device| device.vhost_user_socket.is_empty()) {
        // An older release does not know the field.
        if new {
            let detached = driver.dpus.detach(node, &uuid, true, deadline).await;
            detached.map_err(|why| status::of_node(&node.id, &why))?;
        }
        return Err(Status::failed_precondition(format!(
            "node {}: its card made a block device without a vhost-user-blk socket beside it; update csi-node-dpu, volume-attacher and \
             opi-bridge there, or use a StorageClass without vhostUserBlk",
            node.id
        )));
    }
    Ok(attached)
}
