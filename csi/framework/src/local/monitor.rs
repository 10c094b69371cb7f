//! A volume's daemon, seen and changed through its monitor.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use fail::fail_point;
use qemu::{Error as QmpError, Event, Events, EventsLost, Qmp, Step};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::recipe::{self, MERGING, TOP, step};

/// How long a daemon may take for a command. I/O that hangs in the kernel is the only thing that takes longer.
const PATIENCE: Duration = Duration::from_secs(8);
/// The job of a merge.
pub(crate) const MERGE: &str = "merge";

/// One connection.
#[derive(Debug, Clone)]
pub(crate) struct Monitor(Qmp);

/// What a daemon is.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The node below [`TOP`], and below [`MERGING`] while that is there: the image that takes the writes.
    pub(crate) image: String,
    /// Bytes of the disk.
    pub(crate) size: u64,
    /// Nodes by name, and whether another node or an export uses them.
    pub(crate) nodes: BTreeMap<String, bool>,
    /// Exports: id and kind.
    pub(crate) exports: BTreeMap<String, String>,
    /// A merge is under way.
    pub(crate) merging: bool,
}

impl Monitor {
    pub(crate) async fn connect(socket: &Path) -> Result<Self, QmpError> {
        Qmp::connect(socket, Instant::now() + PATIENCE)
            .await
            .map(Self)
    }

    /// Runs a command.
    pub(crate) async fn run(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.0
            .run(&step(command, arguments), Instant::now() + PATIENCE)
            .await
    }

    /// Runs a command, to which the given sentence of QEMU's says that there is nothing to do.
    pub(crate) async fn run_unless(
        &self,
        command: &str,
        arguments: Value,
        done: &str,
    ) -> Result<(), QmpError> {
        match self.run(command, arguments).await {
            Err(error) if error.says(done) => Ok(()),
            other => other.map(drop),
        }
    }

    pub(crate) async fn look(&self) -> Result<Seen, QmpError> {
        let (graph, nodes, exports, jobs) = tokio::try_join!(
            self.run("x-debug-query-block-graph", json!({})),
            self.run("query-named-block-nodes", json!({ "flat": true })),
            self.run("query-block-exports", json!({})),
            self.run("query-jobs", json!({})),
        )?;
        let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
        let names: BTreeMap<u64, String> = list(&graph, "nodes")
            .iter()
            .filter_map(|node| Some((node["id"].as_u64()?, node["name"].as_str()?.to_owned())))
            .collect();
        let mut seen = Seen::default();
        for name in names.values() {
            seen.nodes.insert(name.clone(), false);
        }
        let mut below = BTreeMap::new();
        for edge in list(&graph, "edges") {
            let name = |key: &str| edge[key].as_u64().and_then(|id| names.get(&id));
            if let Some(child) = name("child") {
                seen.nodes.insert(child.clone(), true);
                if let Some(parent) = name("parent").filter(|_| edge["name"] == "file") {
                    below.insert(parent.as_str(), child);
                }
            }
        }
        let image = below.get(TOP).copied();
        let image = image
            .filter(|node| *node != MERGING)
            .or(below.get(MERGING).copied());
        seen.image = image.cloned().unwrap_or_default();
        let top = nodes.as_array().into_iter().flatten();
        for node in top.filter(|node| node["node-name"] == TOP) {
            seen.size = node["image"]["virtual-size"].as_u64().unwrap_or(0);
        }
        for export in exports.as_array().into_iter().flatten() {
            if let (Some(id), Some(kind)) = (export["id"].as_str(), export["type"].as_str()) {
                seen.exports.insert(id.to_owned(), kind.to_owned());
            }
        }
        let jobs = jobs.as_array().into_iter().flatten();
        seen.merging = jobs.into_iter().any(|job| job["id"] == MERGE);
        Ok(seen)
    }

    /// Stops a merge and waits for its end. What it has done is not lost.
    pub(crate) async fn stop_merging(&self) -> Result<(), QmpError> {
        let events = self.0.events();
        let arguments = json!({ "device": MERGE, "force": true });
        let stopped = self.run_unless("block-job-cancel", arguments, "not found");
        match stopped.await {
            // It is at its end already.
            Err(error) if error.says("cannot accept command verb") => {}
            other => other?,
        }
        self.merge_over(events).await
    }

    /// Starts a merge into the image `node` of everything down to `base`, which is left out. [`Self::end_merge`] ends it.
    pub(crate) async fn start_merge(
        &self,
        node: &str,
        base: Option<&Path>,
    ) -> Result<Events, QmpError> {
        // That of a predecessor that was killed.
        self.stop_merging().await?;
        let events = self.0.events();
        let mut arguments = json!({
            "job-id": MERGE, "device": node, "auto-finalize": false, "filter-node-name": MERGING,
        });
        if let Some(base) = base {
            arguments["base"] = json!(base);
        }
        self.run("block-stream", arguments).await?;
        Ok(events)
    }

    /// Copies what the image `gone` has into `onto`, on which it rests; then the one above it rests on `onto`. Returns when that is so,
    /// or when the job was stopped: then nothing was lost either.
    ///
    /// Two jobs: when the first one would end, `onto` may have tables in QEMU's memory alone, and an image above would rest on it before
    /// they are written (seen with 10.0.13; killed in between, the data would be gone). So the first is given up at its end, which
    /// writes and syncs `onto`; the second copies the same bytes to the same places.
    pub(crate) async fn fold(&self, gone: &Path, onto: &Path) -> Result<(), QmpError> {
        // That of a predecessor that was killed.
        self.stop_merging().await?;
        for last in [false, true] {
            let (Some(top), Some(base)) = (self.node_of(gone).await?, self.node_of(onto).await?)
            else {
                return Ok(());
            };
            let mut events = self.0.events();
            let arguments = json!({
                "job-id": MERGE, "device": TOP, "top-node": top, "base-node": base, "auto-finalize": last,
            });
            self.run("block-commit", arguments).await?;
            fail_point!("local::fold");
            if !last {
                if !self.is_pending(&mut events).await? {
                    // It failed: what it moved may be in tables in memory.
                    return Ok(());
                }
                let id = json!({ "id": MERGE });
                self.run_unless("job-cancel", id, "not found").await?;
            }
            self.merge_over(events).await?;
            fail_point!("local::fold");
        }
        Ok(())
    }

    /// Waits until the merge is held at its end. False if it is no more: it failed or was stopped.
    async fn is_pending(&self, events: &mut Events) -> Result<bool, QmpError> {
        loop {
            let jobs = self.run("query-jobs", json!({})).await?;
            let mut jobs = jobs.as_array().into_iter().flatten();
            let Some(job) = jobs.find(|job| job["id"] == MERGE) else {
                return Ok(false);
            };
            if job["status"] == "pending" {
                return Ok(true);
            }
            let changed = events.wait_for(|event| event.is("JOB_STATUS_CHANGE", "id", MERGE));
            if changed.await == Err(EventsLost::Ended) {
                return Err(ended());
            }
        }
    }

    /// The node of an image, which has a name of QEMU's own if it was opened as another one's header says.
    async fn node_of(&self, image: &Path) -> Result<Option<String>, QmpError> {
        let nodes = self
            .run("query-named-block-nodes", json!({ "flat": true }))
            .await?;
        let mut nodes = nodes.as_array().into_iter().flatten();
        let node = nodes.find(|node| node["drv"] == "qcow2" && node["file"] == json!(image));
        Ok(node.and_then(|node| Some(node["node-name"].as_str()?.to_owned())))
    }

    /// Waits until all is moved, and lets the image rest on the base then; or until the merge was stopped.
    ///
    /// By itself QEMU would write the image's header before the tables of what was moved (seen with 10.0.13; killed in between, the
    /// data would be gone). So they are written first: a node that is opened anew is flushed, with all below it that is writable.
    pub(crate) async fn end_merge(&self, mut events: Events) -> Result<(), QmpError> {
        if !self.is_pending(&mut events).await? {
            return Ok(());
        }
        fail_point!("local::merge");
        let ended = async {
            let options = json!({ "options": [recipe::top(MERGING)] });
            self.run("blockdev-reopen", options).await?;
            self.run("job-finalize", json!({ "id": MERGE })).await
        };
        match ended.await {
            // It was stopped in this moment.
            Err(QmpError::Refused { .. }) if !self.look().await?.merging => Ok(()),
            ended => {
                ended?;
                self.merge_over(events).await
            }
        }
    }

    /// Waits for the end of a merge: it is complete or was stopped.
    async fn merge_over(&self, mut events: Events) -> Result<(), QmpError> {
        loop {
            if !self.look().await?.merging {
                return Ok(());
            }
            let over = |e: &Event| {
                e.is("JOB_STATUS_CHANGE", "id", MERGE)
                    && e.is("JOB_STATUS_CHANGE", "status", "null")
            };
            match events.wait_for(over).await {
                Ok(_) => return Ok(()),
                Err(EventsLost::Missed(_)) => {}
                Err(EventsLost::Ended) => return Err(ended()),
            }
        }
    }

    /// Makes the object of this step if there is none of its name. The name of the object to be used, and whether the server has another
    /// one: it keeps the one that it was started with. Where the files are no good the former stays.
    pub(crate) async fn take_credentials(
        &self,
        made_by: &Step,
    ) -> Result<(String, bool), QmpError> {
        let there = self.credentials().await?;
        let id = made_by.object().unwrap_or_default().to_owned();
        if there.contains(&id) {
            return Ok((id, there.len() > 1));
        }
        match (
            self.0.run(made_by, Instant::now() + PATIENCE).await,
            there.first(),
        ) {
            (Err(why @ QmpError::Refused { .. }), Some(former)) => {
                tracing::warn!(%why, "the certificates that lie there now are not used");
                Ok((former.clone(), false))
            }
            (done, former) => {
                done?;
                Ok((id, former.is_some()))
            }
        }
    }

    /// Drops all others, which no server has any more.
    pub(crate) async fn drop_credentials(&self, but: &str) -> Result<(), QmpError> {
        let there = self.credentials().await?;
        for id in there.iter().filter(|id| *id != but) {
            self.run("object-del", json!({ "id": id })).await?;
        }
        Ok(())
    }

    async fn credentials(&self) -> Result<Vec<String>, QmpError> {
        let objects = self.run("qom-list", json!({ "path": "/objects" })).await?;
        let objects = objects.as_array().cloned().unwrap_or_default();
        let ours = objects
            .iter()
            .filter(|object| object["type"] == "child<tls-creds-x509>");
        Ok(ours
            .filter_map(|object| Some(object["name"].as_str()?.to_owned()))
            .collect())
    }

    /// Ends an export with all its users at once, and waits until it is gone.
    pub(crate) async fn end_export(&self, id: &str) -> Result<(), QmpError> {
        let mut events = self.0.events();
        let arguments = json!({ "id": id, "mode": "hard" });
        self.run_unless("block-export-del", arguments, "is not found")
            .await?;
        let deadline = Instant::now() + PATIENCE;
        while self.look().await?.exports.contains_key(id) {
            let gone = events.wait_for(|event| event.is("BLOCK_EXPORT_DELETED", "id", id));
            match tokio::time::timeout_at(deadline, gone).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(EventsLost::Missed(_))) => {}
                Ok(Err(EventsLost::Ended)) | Err(_) => {
                    return Err(QmpError::UnknownOutcome {
                        command: format!("block-export-del {id}"),
                        why: "it was not over in time".to_owned(),
                    });
                }
            }
        }
        Ok(())
    }
}

fn ended() -> QmpError {
    QmpError::UnknownOutcome {
        command: MERGE.to_owned(),
        why: "the daemon ended".to_owned(),
    }
}
