//! What an attachment of this kind leaves beside its port: device information, record, mount. Each step is fine when there is nothing
//! left to do.

use std::path::Path;

use fail::fail_point;
use tracing::warn;

use super::attach::{STAGING_LOCK, blocking, refused};
use super::device_info;
use super::socket::Socket;
use crate::attachment::{AttachmentId, Record};
use crate::error::Error;
use crate::node::Node;

/// Takes an attachment's remains away. The caller holds its lock and has removed its port.
pub(crate) async fn withdraw(node: &Node, id: &AttachmentId, socket: &Socket) -> Result<(), Error> {
    tell_nobody(socket.device_info.as_deref()).await?;
    fail_point!("vhost::withdrawn");
    node.store.forget(id).await?;
    fail_point!("vhost::forgotten");
    release(node, &socket.mount).await
}

/// The same without its mount: the reconcile loop finds that in the same round or the next.
pub(crate) async fn forget(node: &Node, record: &Record) -> Result<(), Error> {
    if let Some(socket) = record.socket() {
        tell_nobody(socket.device_info.as_deref()).await?;
    }
    node.store.forget(&record.id).await
}

/// Removes the device information.
pub(super) async fn tell_nobody(file: Option<&Path>) -> Result<(), Error> {
    match file.map(Path::to_owned) {
        Some(file) => blocking(move || device_info::remove(&file)).await,
        None => Ok(()),
    }
}

/// Takes back what a failed ADD has made beside port and record; what cannot be taken back now is the reconcile loop's.
pub(crate) async fn undo(node: &Node, socket: &Socket) {
    if let Err(error) = release(node, &socket.mount).await {
        warn!(mount = socket.mount, "undo is finished later: {error}");
    }
}

/// Removes a mount that nobody needs any more.
async fn release(node: &Node, mount: &str) -> Result<(), Error> {
    let _alone = node.locks.lock(STAGING_LOCK).await;
    release_alone(node, mount).await
}

/// The same for who holds the staging place. Claims are looked at before records: an ADD writes its record before it gives up its claim.
pub(super) async fn release_alone(node: &Node, mount: &str) -> Result<(), Error> {
    let needs_it = |record: &Record| record.socket().is_some_and(|socket| socket.mount == mount);
    if node.vhost.claims.holds(mount) || node.store.all().iter().any(needs_it) {
        return Ok(());
    }
    let (mounts, name) = (node.vhost.mounts.clone(), mount.to_owned());
    blocking(move || mounts.remove(&name).map_err(|why| refused(&why))).await
}
