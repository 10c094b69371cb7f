//! Sockets whose pod has no volume for them yet. kubelet makes each of a pod's volumes in an operation of its own, tries one that failed
//! again up to two minutes later, and tells nobody; it starts the pod's containers when all are there, and what is mounted after that they
//! do not see. So the socket is noted, NodePublishVolume answers, and here it is shown in the moment in which the volume is made.
//!
//! A note is written before NodePublishVolume answers and taken back before NodeUnpublishVolume looks at mounts: after a kill in between
//! it is found again. One of an earlier boot counts for nothing, as kubelet then publishes anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::storage::HOOK_VOLUME;
use changes::Changes;
use daemon::keyed::{Held, Locks};
use journal::{Boot, Journal, Record};
use podvolume::Pods;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::super::error::Error;
use super::super::node::Node;
use super::{Wish, place};

/// The notes, and who is at work on the sockets of a volume.
#[derive(Debug)]
pub(crate) struct Late {
    notes: Journal<Wish>,
    locks: Locks,
    /// There is one more.
    noted: Notify,
    /// There is one less.
    settled: watch::Sender<()>,
}

fn key(wish: &Wish) -> String {
    format!("{}.{}", wish.uuid, wish.pod)
}

fn failed(why: &journal::Error) -> Error {
    Error::Unavailable(format!("{why} (--run-dir); repeat"))
}

impl Late {
    /// In a directory of their own, which is made.
    pub(crate) fn open(dir: &Path) -> Result<Self, journal::Error> {
        let notes = Journal::open(dir, journal::boot_id()?)?;
        for (key, note) in notes.iter() {
            let Record { boot, .. } = &*note;
            if *boot != Boot::This {
                notes.remove(&key)?;
            }
        }
        Ok(Self {
            notes,
            locks: Locks::default(),
            noted: Notify::new(),
            settled: watch::Sender::default(),
        })
    }

    /// The sockets of a volume are the caller's until the answer is dropped. The volume's own lock would not do: NodePublishVolume has
    /// that while it waits for [`follow`].
    pub(super) async fn lock(&self, volume: Uuid) -> Held {
        self.locks.lock(&volume.to_string()).await
    }

    /// Notes a socket. The volume's sockets are the caller's.
    pub(super) fn note(&self, wish: &Wish) -> Result<(), Error> {
        let key = key(wish);
        let written = match self.notes.get(&key) {
            Some(note) if note.value == *wish => return Ok(()),
            Some(_) => self.notes.update(&key, wish.clone()),
            None => self.notes.insert(&key, wish.clone()),
        };
        written.map_err(|why| failed(&why))?;
        self.noted.notify_one();
        Ok(())
    }

    /// Takes the notes of a volume in a pod back, or in all pods. The volume's sockets are the caller's.
    pub(super) fn forget(&self, volume: Uuid, pod: Option<&str>) -> Result<(), Error> {
        for wish in self.wishes() {
            if wish.uuid == volume && pod.is_none_or(|pod| wish.pod == pod) {
                self.notes.remove(&key(&wish)).map_err(|why| failed(&why))?;
            }
        }
        self.settled.send_replace(());
        Ok(())
    }

    fn has(&self, wish: &Wish) -> bool {
        let note = self.notes.get(&key(wish));
        note.is_some_and(|note| note.value == *wish)
    }

    fn wishes(&self) -> Vec<Wish> {
        self.notes
            .iter()
            .map(|(_, note)| note.value.clone())
            .collect()
    }

    /// Whether a noted socket is shown by then.
    pub(super) async fn is_settled(&self, wish: &Wish, until: Instant) -> bool {
        let mut settled = self.settled.subscribe();
        let gone = settled.wait_for(|()| !self.has(wish));
        tokio::time::timeout_at(until, gone).await.is_ok()
    }
}

/// Shows the noted sockets as their pods' volumes come; never ends. One watch serves them all: a user has few (inotify(7)).
pub(crate) async fn follow(node: Arc<Node>) {
    let pods = Pods::new(&node.kubelet_root);
    let near = |wishes: &[Wish]| -> BTreeSet<PathBuf> {
        let above = |wish: &Wish| pods.nearest(&wish.pod, HOOK_VOLUME);
        wishes.iter().map(above).collect()
    };
    loop {
        let wishes = node.late.wishes();
        if wishes.is_empty() {
            node.late.noted.notified().await;
            continue;
        }
        let heard = near(&wishes);
        let changes = Changes::within(&heard);
        for wish in &wishes {
            if let Err(why) = bring(&node, &pods, wish).await {
                tracing::warn!(
                    volume = %wish.uuid,
                    pod = wish.pod,
                    "its socket is not in the pod yet: {why}"
                );
            }
        }
        // What came on the way down to a volume while it was not listened to.
        if near(&node.late.wishes()) == heard {
            tokio::select! {
                () = changes.come() => {}
                () = node.late.noted.notified() => {}
            }
        }
    }
}

async fn bring(node: &Node, pods: &Pods, wish: &Wish) -> Result<(), Error> {
    let opened = pods.open(&wish.pod, HOOK_VOLUME);
    let Some(opened) = opened.map_err(|why| super::refused(&why))? else {
        return Ok(());
    };
    let _sockets = node.late.lock(wish.uuid).await;
    if !node.late.has(wish) {
        return Ok(());
    }
    place(node, wish, opened).await?;
    node.late.forget(wish.uuid, Some(&wish.pod))?;
    tracing::info!(volume = %wish.uuid, pod = wish.pod, "the pod's volume has come, and the socket is in it");
    Ok(())
}
