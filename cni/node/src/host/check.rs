//! CHECK: is the attachment what its result says? Looks at the kernel and asks the DPU, changes nothing.

use tokio::time::Instant;

use super::node::HostNode;
use crate::call::Check;
use crate::check::{CONVERGENCE, differs, interface};
use crate::error::Error;

/// Serves a CHECK.
pub(crate) async fn check(node: &HostNode, check: &Check, deadline: Instant) -> Result<(), Error> {
    let _alone = node.locks.lock(&check.id.host_link()).await;
    let Some(record) = node.store.get(&check.id) else {
        return Err(differs(&check.id, "this host has no record of it"));
    };
    let vfio = node
        .card
        .function(record.function)
        .is_some_and(|function| function.vfio);
    if !vfio {
        interface(check, "its end on the DPU is down").await?;
    }
    let deadline = deadline.min(Instant::now() + CONVERGENCE);
    let asked = node.link.check(record.key(), record.ordinal, deadline);
    Box::pin(asked).await.map(drop).map_err(Error::from)
}
