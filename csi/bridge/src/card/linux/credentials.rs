//! The certificates that a daemon's NBD client shows.
//!
//! QEMU reads them once, when the object is made, and shows those at each reconnect: a volume that is attached for longer than they last
//! could not come back after a cut. So the names of object and client carry a tag of the files' contents; where these are exchanged the
//! recipe changes, and a running daemon gets a client with the new ones in place of the old one, under a pause of its requests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use changes::Changes;
use engine::{Change, Daemon, Recipe, State};
use proto::volume::v1::NbdSource;
use qemu::commands::{BlockdevDel, ObjectDel, QomList, QueryNamedBlockNodes};
use qemu::{Qmp, Step};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::daemon::OWNER;
use super::recipe::{DISK, Places, TOP};
use super::{Linux, recipe};
use crate::card::{Error, Notice, Result};

/// What the client's side of TLS is made of.
pub(super) const FILES: [&str; 3] = ["ca-cert.pem", "client-cert.pem", "client-key.pem"];
const KIND: &str = "tls-creds-x509";
const NAMESPACE: Uuid = Uuid::from_u128(0x6f75_7462_6f61_7264_8000_6372_6564_7300);

/// What a client is called, by what it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// The node.
    pub(super) disk: String,
    /// The credentials' object.
    pub(super) tls: String,
    /// Where they lie.
    pub(super) dir: PathBuf,
}

/// The names for what lies there now. None: the source has no TLS.
pub(super) fn of(nbd: &NbdSource, places: &Places) -> Result<Option<Named>> {
    let Some(tls) = &nbd.tls else { return Ok(None) };
    let dir = places.credentials.join(&tls.credentials);
    let tag = tag(&dir).map_err(|why| {
        Error::NotFound(format!(
            "source.nbd.tls.credentials: {}: {why}; put the credentials there",
            dir.display()
        ))
    })?;
    Ok(Some(Named {
        disk: format!("{DISK}-{tag}"),
        tls: format!("tls-{tag}"),
        dir,
    }))
}

fn tag(dir: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    for file in FILES {
        bytes.extend(std::fs::read(dir.join(file))?);
    }
    let mut tag = Uuid::new_v5(&NAMESPACE, &bytes).simple().to_string();
    tag.truncate(12);
    Ok(tag)
}

/// The step that makes the credentials' object.
fn credentials(recipe: &Recipe) -> Option<&Step> {
    let mut steps = recipe.steps().iter();
    steps.find(|step| {
        step.arguments
            .get("qom-type")
            .is_some_and(|kind| kind == KIND)
    })
}

/// Where the files lie that the recipe's object was made of.
fn directory(recipe: &Recipe) -> Option<&Path> {
    let dir = credentials(recipe)?.arguments.get("dir")?;
    dir.as_str().map(Path::new)
}

/// Whether other files lie there than the recipe's object was made of.
fn is_outdated(recipe: &Recipe) -> bool {
    // While nothing usable lies there the old ones are as good as any.
    let now = directory(recipe).and_then(|dir| tag(dir).ok());
    let object = credentials(recipe).and_then(Step::object);
    now.is_some_and(|tag| object != Some(&format!("tls-{tag}")))
}

/// Keeps the recipes of our daemons that run.
fn note(daemons: &mut BTreeMap<String, Recipe>, change: Change) {
    let changed = match change {
        Change::All(all) => {
            daemons.clear();
            all
        }
        Change::One(one) => vec![*one],
    };
    for daemon in changed.into_iter().filter(|daemon| daemon.owner == OWNER) {
        match daemon.state {
            State::Running => drop(daemons.insert(daemon.id, daemon.recipe)),
            _ => drop(daemons.remove(&daemon.id)),
        }
    }
}

impl Linux {
    /// Tells of daemons whose client shows other certificates than lie there now; never ends.
    pub(crate) async fn follow_certificates(self: Arc<Self>) {
        let mut watch = self.engine.watch();
        let mut daemons = BTreeMap::new();
        let mut heard = BTreeSet::new();
        let mut changed = Box::pin(Changes::within(&heard).come());
        loop {
            let is_heard = tokio::select! {
                change = watch.next() => {
                    note(&mut daemons, change);
                    let mut directories = daemons.values().filter_map(directory);
                    directories.all(|dir| heard.contains(dir))
                }
                () = &mut changed => false,
            };
            if is_heard {
                continue;
            }
            heard = daemons
                .values()
                .filter_map(directory)
                .map(Path::to_owned)
                .collect();
            changed = Box::pin(Changes::within(&heard).come());
            let recipes = daemons.clone();
            let outdated = tokio::task::spawn_blocking(move || {
                let outdated = recipes.iter().filter(|(_, recipe)| is_outdated(recipe));
                outdated
                    .filter_map(|(id, _)| recipe::volume_of(id))
                    .collect::<Vec<_>>()
            });
            for uuid in outdated.await.unwrap_or_default() {
                // Nobody may be listening.
                let _ = self.notices.send(Notice::Outdated(uuid));
            }
        }
    }

    /// Lets a running daemon's client be the recipe's: with the certificates that it names.
    pub(super) async fn renew(&self, qmp: &Qmp, daemon: &Daemon, deadline: Instant) -> Result<()> {
        let Some(tls) = credentials(&daemon.recipe) else {
            return Ok(());
        };
        let mut steps = daemon.recipe.steps().iter();
        let disk = steps.find(|step| step.arguments.get("driver").is_some_and(|d| d == "nbd"));
        let mut steps = daemon.recipe.steps().iter();
        let top = steps.find(|step| step.arguments.get("node-name").is_some_and(|n| n == TOP));
        let (Some(object), Some(disk), Some(top)) = (tls.object(), disk, top) else {
            return Ok(());
        };
        let name = disk.arguments.get("node-name").and_then(Value::as_str);
        let name = name.unwrap_or_default();
        let nodes = QueryNamedBlockNodes { flat: Some(true) };
        let nodes = qmp.execute(&nodes, deadline).await?;
        let old = |node: &str| node != name && (node == DISK || node.starts_with("disk-"));
        let old: Vec<_> = nodes
            .iter()
            .filter(|node| old(&node.node_name))
            .map(|node| node.node_name.clone())
            .collect();
        if old.is_empty() {
            return Ok(());
        }
        if !nodes.iter().any(|node| node.node_name == name) {
            match qmp.run(tls, deadline).await {
                // An attempt before this one came so far.
                Err(error) if error.says("attempt to add duplicate property") => {}
                other => drop(other?),
            }
            qmp.run(disk, deadline).await?;
        }
        fail::fail_point!("card::renewing");
        let mut arguments = Map::new();
        arguments.insert("options".into(), json!([top.arguments]));
        let reopen = Step {
            execute: "blockdev-reopen".into(),
            arguments,
        };
        qmp.run(&reopen, deadline).await?;
        for node_name in old {
            qmp.execute(&BlockdevDel { node_name }, deadline).await?;
        }
        tracing::info!(
            daemon = daemon.id,
            "the client shows the certificate that lies there now"
        );
        let objects = QomList {
            path: "/objects".into(),
        };
        let objects = qmp.execute(&objects, deadline).await?;
        let kind = format!("child<{KIND}>");
        for old in objects
            .iter()
            .filter(|it| it.kind == kind && it.name != *object)
        {
            let id = old.name.clone();
            qmp.execute(&ObjectDel { id }, deadline).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_another_client() {
        let home = tempfile::tempdir().unwrap();
        let write = |text: &str| {
            FILES
                .iter()
                .for_each(|file| std::fs::write(home.path().join(file), text).unwrap());
        };
        write("a");
        let id = format!("tls-{}", tag(home.path()).unwrap());
        let step = json!({ "execute": "object-add", "arguments":
            { "qom-type": KIND, "id": id, "dir": home.path() } });
        let recipe = Recipe::from_iter([serde_json::from_value::<Step>(step).unwrap()]);
        assert!(!is_outdated(&recipe));
        write("b");
        assert!(is_outdated(&recipe));
        std::fs::remove_file(home.path().join(FILES[0])).unwrap();
        assert!(!is_outdated(&recipe), "half a set is none");
    }
}
