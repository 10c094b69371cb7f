//! GC: removes the attachments of one network that the runtime no longer knows (CNI specification, section "GC").

use std::collections::HashSet;

use cni_bin::code;
use tokio::time::Instant;
use tracing::info;

use crate::attachment::AttachmentId;
use crate::detach;
use crate::error::Error;
use crate::node::Node;
use crate::stages::Stages;

/// Serves a GC. No list at all is no list of nothing: then nothing is removed.
pub(crate) async fn gc(
    node: &Node,
    network: &str,
    valid: Option<&[AttachmentId]>,
    stages: &mut Stages,
    deadline: Instant,
) -> Result<(), Error> {
    let Some(valid) = valid else { return Ok(()) };
    let valid: HashSet<&AttachmentId> = valid.iter().collect();
    let mut failed = Vec::new();
    for record in node.store.all() {
        if record.network != network || valid.contains(&record.id) {
            continue;
        }
        let _alone = node.locks.lock(&record.id.host_link()).await;
        if node.store.get(&record.id).as_ref() != Some(&record) {
            continue;
        }
        info!(pod = %record.pod, uid = record.pod.uid, sandbox = record.id.container, ifname = record.id.ifname,
            network, op = "GC", "attachment is no longer valid: removed");
        if let Err(error) = detach::remove(node, &record.id, stages, deadline).await {
            failed.push(error.about(&record.id).to_string());
        }
    }
    left(network, &failed)
}

/// What a GC answers, given the sentences of those that could not be removed.
pub(crate) fn left(network: &str, failed: &[String]) -> Result<(), Error> {
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        code::IO_FAILURE,
        format!(
            "Network {network}: {} attachments could not be removed: {}",
            failed.len(),
            failed.join("; ")
        ),
        "cni-node tries again by itself within a minute.",
    ))
}
