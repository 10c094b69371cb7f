//! The reconcile loop's view of this kind: which mounts are there, which are missing, and which sandboxes have ended.
//!
//! There is no link that would die with the pod's namespace: the namespace itself is looked at, as soon as its path goes
//! ([`super::ended`]).

use std::collections::BTreeSet;
use std::io;

use nix::sys::statfs::statfs;

use super::attach::{STAGING_LOCK, blocking, refused};
use super::{volume, withdraw};
use crate::attachment::{AttachmentId, Record};
use crate::error::Error;
use crate::node::Node;

/// What is there of this kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// Mounts of ours, by name.
    pub(crate) mounts: BTreeSet<String>,
    /// Attachments whose mount is not there, or is of another directory than their volume's.
    pub(crate) unmounted: BTreeSet<AttachmentId>,
    /// Attachments whose network namespace is gone.
    pub(crate) ended: BTreeSet<AttachmentId>,
}

/// The lock that a step at a mount needs.
pub(crate) fn key() -> String {
    STAGING_LOCK.to_owned()
}

/// The mounts alone: to be looked at before the journal is, for an ADD writes its record when its mount is there.
pub(crate) async fn mounts(node: &Node) -> Result<BTreeSet<String>, Error> {
    let vhost = &node.vhost;
    let mounts = vhost.mounts.clone();
    let seen = blocking(move || mounts.observe().map_err(|why| refused(&why))).await?;
    let names: BTreeSet<String> = seen
        .into_keys()
        .filter(|name| !vhost.claims.holds(name))
        .collect();
    let count = i64::try_from(names.len()).unwrap_or(i64::MAX);
    vhost.metrics.mounts.set(count);
    Ok(names)
}

/// What the journal's attachments have of what they need.
pub(crate) async fn observe(
    node: &Node,
    mounts: BTreeSet<String>,
    records: &[Record],
) -> Result<Observed, Error> {
    let ours: Vec<Record> = records
        .iter()
        .filter(|record| record.socket().is_some())
        .cloned()
        .collect();
    if ours.is_empty() {
        return Ok(Observed {
            mounts,
            ..Observed::default()
        });
    }
    let (args, all) = (node.vhost.args.clone(), node.vhost.mounts.clone());
    blocking(move || {
        let seen = all.observe().map_err(|why| refused(&why))?;
        let mut observed = Observed {
            mounts,
            ..Observed::default()
        };
        for record in ours {
            let Some(socket) = record.socket() else {
                continue;
            };
            let wanted = volume::existing(&args, &record.pod, socket.volume);
            let right = seen
                .get(&socket.mount)
                .is_some_and(|seen| seen.guarded && seen.directory == wanted);
            // A volume that kubelet has taken away needs no mount any more: its pod is about to end.
            if !right && wanted.is_some() {
                observed.unmounted.insert(record.id.clone());
            }
            if gone(&record) {
                observed.ended.insert(record.id);
            }
        }
        Ok(observed)
    })
    .await
}

/// Whether nothing is at the path of the namespace. What cannot be looked at is not gone.
pub(super) fn gone(record: &Record) -> bool {
    match statfs(&record.netns) {
        Ok(_) => false,
        Err(why) => io::Error::from(why).kind() == io::ErrorKind::NotFound,
    }
}

/// Mounts the directory of a living attachment again.
pub(crate) async fn mount(node: &Node, record: &Record) -> Result<(), Error> {
    let Some(socket) = record.socket() else {
        return Ok(());
    };
    let (args, pod, kind) = (node.vhost.args.clone(), record.pod.clone(), socket.volume);
    let directory = blocking(move || {
        let (volume, opened) = volume::of_pod(&args, &pod, Some(kind))?;
        volume::directory(&args, &pod, volume, opened)
    });
    let directory = directory.await?;
    node.vhost.mount_alone(&socket.mount, directory).await
}

/// Removes a mount that no attachment needs. The caller holds the lock of [`key`].
pub(crate) async fn unmount(node: &Node, name: &str) -> Result<(), Error> {
    withdraw::release_alone(node, name).await
}
