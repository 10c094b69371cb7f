//! Several daemons switched to new images at one moment.

use std::io;

use futures::future::{join_all, try_join_all};
use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use super::converge::object;
use super::gate::{self, Gate};
use super::monitor::Monitor;
use super::recipe::{GATE, file_node};
use super::{Inner, failed};
use crate::error::{Error, Result};
use crate::state::VolumeRecord;

struct Member {
    monitor: Monitor,
    old: String,
    new: String,
}

impl Inner {
    /// Switches the volumes to their recorded images, so that no write that was begun after another was acknowledged is
    /// below and that other above. All or, as far as anybody can see, none: after an error each is switched by itself, which
    /// changes no contents.
    pub(crate) async fn together(&self, volumes: &[Uuid]) -> Result<()> {
        let result = self.switch_together(volumes).await;
        let rest = join_all(volumes.iter().map(|uuid| self.converge(*uuid))).await;
        result.and(rest.into_iter().collect())
    }

    async fn switch_together(&self, volumes: &[Uuid]) -> Result<()> {
        let all: Vec<(Uuid, VolumeRecord)> = {
            let state = self.catalogue.state();
            let record = |uuid: &Uuid| Some((*uuid, state.volumes.get(uuid)?.clone()));
            volumes.iter().filter_map(record).collect()
        };
        let served = all.iter().filter(|(_, volume)| !volume.exports.is_empty());
        let members: Vec<Member> =
            try_join_all(served.map(|(uuid, v)| self.member(*uuid, v))).await?;
        if members.is_empty() {
            return Ok(());
        }
        let group = || format!("group snapshot of {} volumes", volumes.len());
        let name = format!("g{}", Uuid::new_v4().simple());
        let path = self.socket_dir().join(&name[..12]);
        let gate = Gate::new(&path).map_err(|error| failed(&group(), &path, &error))?;
        let target = gate.target();
        fail::fail_point!("local::gate");
        let refused = Notify::new();
        let transactions = join_all(members.iter().map(|member| async {
            let snapshot = json!({ "node": member.old, "overlay": member.new });
            let pause = json!({
                "device": GATE, "job-id": name, "target": target, "format": "raw", "mode": "existing", "sync": "full",
            });
            let actions = json!({ "actions": [
                { "type": "blockdev-snapshot", "data": snapshot },
                { "type": "drive-backup", "data": pause },
            ]});
            let done = member.monitor.run("transaction", actions).await;
            if done.is_err() {
                refused.notify_one();
            }
            done
        }));
        let serve = async {
            let here = tokio::select! {
                biased;
                () = refused.notified() => Err(io::Error::other("a member's daemon refused")),
                here = gate.gather(members.len()) => here,
            };
            // With the gate the sockets of all that wait at it close, and their transactions undo themselves.
            drop(gate);
            let here = here?;
            fail::fail_point!("local::paused");
            gate::open(here).await
        };
        let (done, served) = futures::join!(transactions, serve);
        let unavailable = |why: String| Error::Unavailable {
            object: group(),
            why,
        };
        for done in done {
            done.map_err(|why| unavailable(why.to_string()))?;
        }
        served.map_err(|why| unavailable(why.to_string()))
    }

    async fn member(&self, uuid: Uuid, volume: &VolumeRecord) -> Result<Member> {
        let daemon = self.put(uuid, volume).await?;
        let opened = async {
            let monitor = self.monitor(uuid, &daemon).await?;
            let seen = monitor.look().await?;
            let old = self.prepare_switch(&monitor, &seen, volume).await?;
            Ok::<_, qemu::Error>((monitor, old))
        };
        let refused = |why: String| Error::Unavailable {
            object: object(uuid),
            why,
        };
        let (monitor, old) = opened.await.map_err(|why| refused(why.to_string()))?;
        let switched = "its daemon was restarted in the middle of the snapshot";
        Ok(Member {
            monitor,
            old: old.ok_or_else(|| refused(switched.to_owned()))?,
            new: file_node(volume.top),
        })
    }
}
