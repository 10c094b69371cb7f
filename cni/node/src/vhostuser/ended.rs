//! Sandboxes that end without a DEL, as they end.
//!
//! With the namespace of a socket's attachment no link goes, of which the kernel would tell. What goes is the namespace's path, and with it
//! the attachment ([`super::order`]). So the directories of those paths are followed (`changes`). They tell of all sandboxes of the node;
//! the reconcile loop is woken for those of ours that are gone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use changes::Changes;
use tokio::sync::watch;

use super::attach::blocking;
use super::order::gone;
use crate::attachment::{AttachmentId, Record};
use crate::store::Store;

/// Sandboxes end in groups; and a kernel before 5.17 tells of a file that goes a moment before it is gone.
const PAUSE: Duration = Duration::from_millis(50);

/// Changes whenever a namespace of an attachment with a socket has gone. Who drops it ends the watch.
pub(crate) fn follow(store: Store) -> watch::Receiver<()> {
    let (sender, receiver) = watch::channel(());
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            () = tell(&sender, &store) => {}
        }
    });
    receiver
}

async fn tell(sender: &watch::Sender<()>, store: &Store) {
    let mut records = store.changed();
    let mut told = BTreeSet::new();
    loop {
        records.borrow_and_update();
        let sockets: Vec<Record> = store
            .all()
            .into_iter()
            .filter(|record| record.socket().is_some())
            .collect();
        let directories: BTreeSet<PathBuf> = sockets
            .iter()
            .filter_map(|record| record.netns.parent().map(Path::to_owned))
            .collect();
        // Begun before the look: what goes in between is heard.
        let changes = (!directories.is_empty()).then(|| Changes::within(&directories));
        let ended = ended(sockets).await;
        if !ended.is_subset(&told) {
            sender.send_replace(());
        }
        told = ended;
        let heard = async {
            match changes {
                Some(changes) => changes.come().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = records.changed() => if changed.is_err() { return },
            () = heard => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn ended(sockets: Vec<Record>) -> BTreeSet<AttachmentId> {
    let gone = blocking(move || {
        let gone = sockets.into_iter().filter(gone);
        Ok(gone.map(|record| record.id).collect())
    });
    gone.await.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs::{remove_file, write};

    use super::super::Socket;
    use super::super::socket::Volume;
    use super::*;
    use crate::attachment::{End, Pod, PortRecord};

    /// Less than a third of the time after which everything is looked at anyway.
    const SOON: Duration = Duration::from_secs(8);

    fn record(netns: PathBuf) -> Record {
        let name = netns.file_name().unwrap().to_str().unwrap().to_owned();
        let pod = Pod {
            namespace: "default".into(),
            name: "vm".into(),
            uid: "u-vm".into(),
        };
        let socket = Socket::new(Path::new("/run"), &pod, "net1", Volume::SharedDir).unwrap();
        Record {
            id: AttachmentId {
                container: name,
                ifname: "net1".into(),
            },
            network: "fast".into(),
            pod,
            netns,
            port: PortRecord {
                iface_id: "p".into(),
                mac: String::new(),
                ips: Vec::new(),
            },
            ordinal: 1,
            end: End::VhostUser(socket),
        }
    }

    #[tokio::test]
    async fn the_end_of_a_namespace_of_ours_is_told_and_no_others() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("journal"), "this-boot").unwrap();
        let directory = home.path().join("netns");
        std::fs::create_dir(&directory).unwrap();
        let path = |name: &str| directory.join(name);
        let mut ends = follow(store.clone());
        let told = async |ends: &mut watch::Receiver<()>| {
            let told = tokio::time::timeout(SOON, ends.changed()).await;
            told.unwrap().unwrap();
        };
        for name in ["a", "b", "other"] {
            write(path(name), "").unwrap();
        }
        for name in ["a", "b"] {
            store.insert(record(path(name))).await.unwrap();
        }
        let veth = Record {
            end: End::Veth,
            ..record(path("other"))
        };
        store.insert(veth.clone()).await.unwrap();
        for name in ["other", "a"] {
            remove_file(path(name)).unwrap();
        }
        told(&mut ends).await;
        // Its record is not forgotten yet: that is no news.
        store.forget(&veth.id).await.unwrap();
        store.insert(veth).await.unwrap();
        remove_file(path("b")).unwrap();
        told(&mut ends).await;
        assert!(!ends.has_changed().unwrap());
        // Gone before it was known.
        store.insert(record(path("c"))).await.unwrap();
        told(&mut ends).await;
    }
}
