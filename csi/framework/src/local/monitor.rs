//! A volume's daemon, seen and changed through its monitor.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use qemu::{Error as QmpError, Event, Events, EventsLost, Qmp};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::recipe::{TOP, step};

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
    /// The node below [`TOP`]: the image that takes the writes.
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
        for edge in list(&graph, "edges") {
            let name = |key: &str| edge[key].as_u64().and_then(|id| names.get(&id));
            if let Some(child) = name("child") {
                seen.nodes.insert(child.clone(), true);
                if edge["name"] == "file" && name("parent").is_some_and(|parent| parent == TOP) {
                    seen.image.clone_from(child);
                }
            }
        }
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
        self.run_unless("block-job-cancel", arguments, "not found")
            .await?;
        self.merge_over(events).await
    }

    /// Starts a merge into the image `node` of everything down to `base`, which is left out.
    pub(crate) async fn start_merge(
        &self,
        node: &str,
        base: Option<&Path>,
    ) -> Result<Events, QmpError> {
        let events = self.0.events();
        let mut arguments = json!({ "job-id": MERGE, "device": node });
        if let Some(base) = base {
            arguments["base"] = json!(base);
        }
        self.run("block-stream", arguments).await?;
        Ok(events)
    }

    /// Waits for the end of a merge: it is complete or was stopped.
    pub(crate) async fn merge_over(&self, mut events: Events) -> Result<(), QmpError> {
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
                Err(EventsLost::Ended) => {
                    return Err(QmpError::UnknownOutcome {
                        command: MERGE.to_owned(),
                        why: "the daemon ended".to_owned(),
                    });
                }
            }
        }
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
