//! A volume's image and daemon, made as recorded: looked at, then changed by what differs.

use std::sync::PoisonError;
use std::time::Duration;

use engine::{Daemon, Put, Recipe, State};
use qemu::Error as QmpError;
use serde_json::json;
use uuid::Uuid;

use super::monitor::{Monitor, Seen};
use super::recipe::{self, TOP, daemon_id, export_id, file_node, is_our_export};
use super::{Inner, deadline, soon};
use crate::error::{Error, Result};
use crate::state::VolumeRecord;

/// A daemon may be killed while it is being changed; its next process has the new recipe.
const ATTEMPTS: usize = 4;

impl Inner {
    /// Whose daemons these are, at the engine.
    pub(crate) fn owner(&self) -> String {
        let hash =
            <sha2::Sha256 as sha2::Digest>::digest(self.config.dir.as_os_str().as_encoded_bytes());
        format!(
            "local-{:02x}{:02x}{:02x}{:02x}",
            hash[0], hash[1], hash[2], hash[3]
        )
    }

    /// Makes image and daemon of a volume as recorded.
    pub(crate) async fn converge(&self, uuid: Uuid) -> Result<()> {
        self.is_sure(uuid, false);
        let volume = self.catalogue.state().volumes.get(&uuid).cloned();
        let Some(volume) = volume.filter(|volume| !volume.exports.is_empty()) else {
            self.forget_monitor(uuid);
            self.engine
                .remove(&daemon_id(uuid), deadline())
                .await
                .map_err(|why| engine_error(uuid, &why))?;
            self.grow_image(uuid).await?;
            self.is_sure(uuid, true);
            return Ok(());
        };
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match self.converge_daemon(uuid, &volume).await? {
                Ok(()) => {
                    self.is_sure(uuid, true);
                    return Ok(());
                }
                Err(error) => last = Some(error),
            }
        }
        Err(Error::Unknown {
            object: object(uuid),
            why: last.map_or_else(String::new, |error| error.to_string()),
        })
    }

    /// The same after a start: what this program's predecessor let the daemon do goes on without anybody who would end it in time.
    pub(crate) async fn settle(&self, uuid: Uuid) -> Result<()> {
        self.converge(uuid).await?;
        let volume = self.catalogue.state().volumes.get(&uuid).cloned();
        let Some(volume) = volume.filter(|volume| !volume.exports.is_empty()) else {
            return Ok(());
        };
        let daemon = self.put(uuid, &volume).await?;
        let stopped = async { self.monitor(uuid, &daemon).await?.stop_merging().await };
        stopped.await.map_err(|why| Error::Unavailable {
            object: object(uuid),
            why: why.to_string(),
        })
    }

    /// The outer error is final, the inner one is worth another attempt.
    async fn converge_daemon(
        &self,
        uuid: Uuid,
        volume: &VolumeRecord,
    ) -> Result<std::result::Result<(), QmpError>> {
        let (daemon, there) = self.put_looking(uuid, volume).await?;
        if !there && daemon.applied == Some(daemon.revision) {
            // It was started by this very recipe, and nobody has changed it since.
            return Ok(Ok(()));
        }
        let done = async {
            let monitor = self.monitor(uuid, &daemon).await?;
            let seen = monitor.look().await?;
            self.change(&monitor, &seen, volume, &daemon).await
        };
        match done.await {
            Err(error @ (QmpError::Refused { .. } | QmpError::Decode { .. })) => {
                Err(Error::Unavailable {
                    object: object(uuid),
                    why: format!("its daemon {}: {error}", daemon.id),
                })
            }
            Err(error) => {
                self.forget_monitor(uuid);
                Ok(Err(error))
            }
            Ok(()) => Ok(Ok(())),
        }
    }

    /// Gives the engine the recipe, with what others added to it, and starts the daemon if there is none.
    pub(crate) async fn put(&self, uuid: Uuid, volume: &VolumeRecord) -> Result<Daemon> {
        let put = self.put_looking(uuid, volume).await;
        put.map(|(daemon, _)| daemon)
    }

    /// The same, and whether there was a daemon before.
    async fn put_looking(&self, uuid: Uuid, volume: &VolumeRecord) -> Result<(Daemon, bool)> {
        let mut failures = 0;
        let mut before = false;
        let daemon = loop {
            match self.offer(uuid, volume).await? {
                // A card was faster: what it added must not be lost.
                None => {}
                // A merge that was cut off in this moment, or with the last process, has the image for some milliseconds
                // yet; nothing tells when it lets go.
                Some((daemon, there))
                    if failures < ATTEMPTS && matches!(daemon.state, State::Failed { .. }) =>
                {
                    failures += 1;
                    before |= there;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Some((daemon, there)) => {
                    before |= there;
                    break daemon;
                }
            }
        };
        match &daemon.state {
            State::Running => Ok((daemon, before)),
            State::Failed { why } => Err(Error::Unavailable {
                object: object(uuid),
                why: format!("its daemon can't be started: {why}"),
            }),
            State::Starting | State::Stopped => Err(Error::Unavailable {
                object: object(uuid),
                why: "its daemon is not up yet".to_owned(),
            }),
        }
    }

    /// The daemon, and whether it was there before. `None`: somebody else changed the recipe while this one was made.
    async fn offer(&self, uuid: Uuid, volume: &VolumeRecord) -> Result<Option<(Daemon, bool)>> {
        let failed = |why: engine::Error| engine_error(uuid, &why);
        let id = daemon_id(uuid);
        let there = self.engine.get(&id, soon()).await.map_err(failed)?;
        let socket = match &there {
            Some(daemon) => daemon.nbd_socket(),
            None => {
                // Nobody has the image open.
                self.grow_image(uuid).await?;
                let info = self.engine.info(soon()).await.map_err(failed)?;
                info.daemons.join(&id).join("nbd.sock")
            }
        };
        let mut recipe = Recipe::default();
        for step in recipe::recipe(&self.config, volume, &socket) {
            recipe.push(step);
        }
        if volume.exports.iter().any(|export| export.same_node)
            && let Some(daemon) = &there
        {
            for step in recipe::foreign(daemon.recipe.steps()) {
                recipe.push(step.clone());
            }
        }
        let put = Put {
            id,
            owner: self.owner(),
            recipe,
        };
        let revision = there.as_ref().map_or(0, |daemon| daemon.revision);
        match self.engine.put_if(&put, revision, deadline()).await {
            Ok(daemon) => Ok(Some((daemon, there.is_some()))),
            Err(engine::Error::Conflict(_)) => Ok(None),
            Err(why) => Err(failed(why)),
        }
    }

    /// The connection to a volume's daemon: the monitor has room for one, so all operations share it.
    pub(crate) async fn monitor(
        &self,
        uuid: Uuid,
        daemon: &Daemon,
    ) -> std::result::Result<Monitor, QmpError> {
        let monitors = || self.monitors.lock().unwrap_or_else(PoisonError::into_inner);
        let known = monitors().get(&uuid).cloned();
        if let Some(monitor) = known {
            if monitor.run("query-version", json!({})).await.is_ok() {
                return Ok(monitor);
            }
            monitors().remove(&uuid);
        }
        let monitor = Monitor::connect(&daemon.qmp_backend()).await?;
        monitors().insert(uuid, monitor.clone());
        Ok(monitor)
    }

    pub(crate) fn forget_monitor(&self, uuid: Uuid) {
        let mut monitors = self.monitors.lock().unwrap_or_else(PoisonError::into_inner);
        monitors.remove(&uuid);
    }

    async fn change(
        &self,
        monitor: &Monitor,
        seen: &Seen,
        volume: &VolumeRecord,
        daemon: &Daemon,
    ) -> std::result::Result<(), QmpError> {
        let old = self.prepare_switch(monitor, seen, volume).await?;
        if let Some(old) = old {
            let arguments = json!({ "node": old, "overlay": file_node(volume.top) });
            monitor.run("blockdev-snapshot", arguments).await?;
        }
        let limits = json!({
            "path": format!("/objects/{}", recipe::LIMITS),
            "property": "limits",
            "value": recipe::limits(&volume.qos),
        });
        monitor.run("qom-set", limits).await?;
        self.change_exports(monitor, seen, volume, daemon).await?;
        drop_unused(monitor).await
    }

    /// Opens the recorded image beside the one that takes the writes, whose node is returned: they may be switched. `None`
    /// if the recorded one takes them already.
    pub(crate) async fn prepare_switch(
        &self,
        monitor: &Monitor,
        seen: &Seen,
        volume: &VolumeRecord,
    ) -> std::result::Result<Option<String>, QmpError> {
        let node = file_node(volume.top);
        if seen.image == node {
            return Ok(None);
        }
        if seen.merging {
            monitor.stop_merging().await?;
        }
        if !seen.nodes.contains_key(&node) {
            let mut image = recipe::image(&self.config, volume.top);
            // Until the switch it has none; then what took the writes is it.
            image["backing"] = serde_json::Value::Null;
            monitor.run("blockdev-add", image).await?;
        }
        Ok(Some(seen.image.clone()))
    }

    async fn change_exports(
        &self,
        monitor: &Monitor,
        seen: &Seen,
        volume: &VolumeRecord,
        daemon: &Daemon,
    ) -> std::result::Result<(), QmpError> {
        let ours = |id: &&String| is_our_export(id);
        let wanted: Vec<_> = recipe::over_nbd(volume).map(export_id).collect();
        let stale = seen
            .exports
            .keys()
            .filter(ours)
            .any(|id| !wanted.contains(id));
        let serves = seen.exports.keys().any(|id| is_our_export(id));
        let grows = seen.size < volume.size;
        if !volume.exports.iter().any(|export| export.same_node) {
            for id in seen.exports.keys().filter(|id| !is_our_export(id)) {
                monitor.end_export(id).await?;
            }
        }
        // A server that stops cuts off every client at once, also one that uses another's export: that is the fence. And
        // NBD exports keep their node from growing.
        let tls = recipe::credentials(daemon.recipe.steps());
        let (tls, renewed) = match tls {
            Some(tls) => monitor
                .take_credentials(tls)
                .await
                .map(|(id, new)| (Some(id), new))?,
            None => (None, false),
        };
        let restart = stale || ((grows || renewed) && serves) || (!serves && !wanted.is_empty());
        if restart {
            let done = "NBD server not running";
            monitor
                .run_unless("nbd-server-stop", json!({}), done)
                .await?;
        }
        if grows {
            if seen.merging {
                monitor.stop_merging().await?;
            }
            let arguments = json!({ "node-name": TOP, "size": volume.size });
            monitor.run("block_resize", arguments).await?;
        }
        if let Some(tls) = tls.as_deref().filter(|_| renewed) {
            monitor.drop_credentials(tls).await?;
        }
        let missing = |id: &String| restart || !seen.exports.contains_key(id);
        if !wanted.iter().any(missing) {
            return Ok(());
        }
        if let Some(hosts) = recipe::hosts(&self.config, volume) {
            let arguments = json!({ "id": recipe::HOSTS });
            monitor
                .run_unless("object-del", arguments, "not found")
                .await?;
            monitor.run(&hosts.execute, hosts.arguments.into()).await?;
        }
        if restart {
            let socket = daemon.nbd_socket();
            let server = recipe::server(&self.config, volume, &socket, tls.as_deref());
            monitor
                .run(&server.execute, server.arguments.into())
                .await?;
        }
        for export in recipe::over_nbd(volume).filter(|export| missing(&export_id(export))) {
            let export = recipe::nbd_export(volume, export);
            monitor
                .run(&export.execute, export.arguments.into())
                .await?;
        }
        Ok(())
    }
}

/// Closes images that a merge or a snapshot that was given up left open.
pub(crate) async fn drop_unused(monitor: &Monitor) -> std::result::Result<(), QmpError> {
    let seen = monitor.look().await?;
    let unused = seen
        .nodes
        .iter()
        .filter(|(name, used)| !**used && name.starts_with("f-"));
    for (name, _) in unused {
        monitor
            .run("blockdev-del", json!({ "node-name": name }))
            .await?;
    }
    Ok(())
}

pub(crate) fn object(uuid: Uuid) -> String {
    format!("volume v1.{}.{uuid}", super::NAME)
}

/// The engine's calls are idempotent and were repeated by its client until the deadline.
pub(crate) fn engine_error(uuid: Uuid, error: &engine::Error) -> Error {
    Error::Unavailable {
        object: object(uuid),
        why: error.to_string(),
    }
}
