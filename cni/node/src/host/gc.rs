//! GC: removes the attachments of one network that the runtime no longer knows (CNI specification, section "GC").

use std::collections::HashSet;

use tokio::time::Instant;
use tracing::info;

use super::detach;
use super::node::HostNode;
use crate::attachment::AttachmentId;
use crate::error::Error;
use crate::gc::left;
use crate::stages::Stages;

/// Serves a GC. No list at all is no list of nothing: then nothing is removed.
pub(crate) async fn gc(
    node: &HostNode,
    network: &str,
    valid: Option<&[AttachmentId]>,
    stages: &mut Stages,
    deadline: Instant,
) -> Result<(), Error> {
    let Some(valid) = valid else { return Ok(()) };
    let valid: HashSet<&AttachmentId> = valid.iter().collect();
    let mut failed = Vec::new();
    for record in node.store.all() {
        let Some(sandbox) = record.sandbox() else {
            continue;
        };
        if sandbox.network != network || valid.contains(&record.id) {
            continue;
        }
        let _alone = node.locks.lock(&record.id.host_link()).await;
        if node.store.get(&record.id).as_ref() != Some(&record) {
            continue;
        }
        info!(pod = %sandbox.pod, uid = sandbox.pod.uid, sandbox = record.id.container, ifname = record.id.ifname,
            network, op = "GC", "attachment is no longer valid: removed");
        if let Err(error) = detach::remove(node, &record, stages, deadline).await {
            failed.push(error.about(&record.id).to_string());
        }
    }
    left(network, &failed)
}
