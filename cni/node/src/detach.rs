//! DEL: OVS port, then link and record. Each step is fine when there is nothing left to do, and needs nothing but the key.

use fail::fail_point;
use tokio::time::Instant;
use tracing::warn;

use crate::attachment::AttachmentId;
use crate::error::Error;
use crate::node::{Node, UNDO};
use crate::plumb::unplumb;
use crate::stages::Stages;
use crate::vhostuser::tap;
use crate::vhostuser::withdraw::withdraw;

/// Serves a DEL.
pub(crate) async fn del(
    node: &Node,
    id: &AttachmentId,
    stages: &mut Stages,
    deadline: Instant,
) -> Result<(), Error> {
    node.under_way.give_up(id);
    let _alone = node.locks.lock(&id.host_link()).await;
    fail_point!("del::begun");
    remove(node, id, stages, deadline).await
}

/// Removes everything of an attachment. The caller holds its lock.
///
/// A pod must not hang in deletion because Open vSwitch is down: its port is then left to the reconcile loop, which
/// removes every port that no record owns. Its link, and with it its traffic, ends now.
pub(crate) async fn remove(
    node: &Node,
    id: &AttachmentId,
    stages: &mut Stages,
    deadline: Instant,
) -> Result<(), Error> {
    let patience = deadline.min(Instant::now() + UNDO);
    if let Err(error) = stages
        .measure("ovs", node.vswitch.unplug(id, patience))
        .await
    {
        warn!(
            sandbox = id.container,
            ifname = id.ifname,
            "port is removed later: {error}"
        );
    }
    fail_point!("del::unplugged");
    if let Some(record) = node.store.get(id)
        && let Some(socket) = record.socket()
    {
        let withdrawn = stages.measure("mount", withdraw(node, id, socket));
        withdrawn.await?;
        fail_point!("del::forgotten");
        return Ok(());
    }
    if let Some(record) = node.store.get(id)
        && record.tap().is_some()
    {
        let withdrawn = stages.measure("netns", tap::withdraw(node, &record));
        withdrawn.await?;
        fail_point!("del::forgotten");
        return Ok(());
    }
    let (unlinked, forgotten) = tokio::join!(
        stages.measure("netns", unplumb(&node.host, id.host_link())),
        node.store.forget(id)
    );
    unlinked?;
    forgotten?;
    fail_point!("del::forgotten");
    Ok(())
}

/// Takes back what a failed ADD has done; what cannot be taken back now is the reconcile loop's.
pub(crate) async fn undo(node: &Node, id: &AttachmentId) {
    let deadline = Instant::now() + UNDO;
    if let Err(error) = remove(node, id, &mut Stages::default(), deadline).await {
        warn!(
            sandbox = id.container,
            ifname = id.ifname,
            "undo is finished later: {error}"
        );
    }
}
