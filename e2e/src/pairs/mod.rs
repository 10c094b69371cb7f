//! Hosts and their DPUs in a lab: what says who serves whom, pods on all of them, and pings whose gaps are measured.

mod ping;
mod scene;
mod standing;
mod watch;

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::names::{CHANNEL_PORT, MODE_DPU, MODE_HOST, MODE_LABEL, NODE_DPU_READY};

use crate::lab::Lab;
use crate::node::Node;
use crate::topology::Role;

pub use ping::{Gap, Ping};
pub use scene::{NAMESPACE, PairScene};
pub use standing::Standing;
pub use watch::{Watch, Watched};

/// A process in a node's network namespace: its pid, and its command line.
pub type Running = (String, Vec<String>);

/// All of them.
///
/// # Errors
/// The kernel does not say which namespaces processes are in.
pub fn processes(node: &Node) -> Result<Vec<Running>> {
    let space = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net"));
    let own = space(&node.holder().to_string()).context("the node's namespace")?;
    let entries = fs::read_dir("/proc").context("cannot read /proc")?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let here = pids.filter(|pid| space(pid).is_ok_and(|there| there == own));
    // A process may end between two looks; one that has ended has no words.
    Ok(here
        .filter_map(|pid| {
            let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            let words: Vec<String> = words.split_terminator('\0').map(str::to_owned).collect();
            (!words.is_empty()).then_some((pid, words))
        })
        .collect())
}

/// Names of the processes of Open vSwitch and OVN in a node's network namespace.
///
/// # Errors
/// As [`processes`].
pub fn switch_processes(node: &Node) -> Result<Vec<String>> {
    let names = processes(node)?.into_iter().filter_map(|(pid, _)| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(name.trim_end().to_owned())
    });
    let mut names: Vec<String> = names
        .filter(|name| ["ovs", "ovn"].iter().any(|start| name.starts_with(start)))
        .collect();
    names.sort();
    Ok(names)
}

/// A host behind a DPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The object `Dpu`. Not the name of a node: nobody may take one for the other.
    pub object: String,
    /// The host's node.
    pub host: String,
    /// The DPU's node.
    pub dpu: String,
}

/// All pairs of a lab.
pub fn of(lab: &Lab) -> Vec<Pair> {
    let hosts = lab.nodes().iter().filter_map(|node| match node.role() {
        Role::Host { dpu } => Some((node.name(), dpu)),
        _ => None,
    });
    (1..)
        .zip(hosts)
        .map(|(number, (host, dpu))| Pair {
            object: format!("card-{number}"),
            host: host.to_owned(),
            dpu: dpu.clone(),
        })
        .collect()
}

impl Pair {
    /// Its object.
    pub fn manifest(&self, lab: &Lab) -> String {
        let (address, _) = lab.node(&self.dpu).addresses();
        let Self { object, host, dpu } = self;
        format!(
            "apiVersion: iaas.yusur.io/v1\nkind: Dpu\nmetadata: {{name: {object}}}\n\
             spec: {{dpuNode: {dpu}, hostNode: {host}, address: {address}, port: {CHANNEL_PORT}}}\n---\n"
        )
    }

    /// Status of a condition of its object: `True`, `False`, `Unknown`, or nothing; and its reason and sentence.
    ///
    /// # Errors
    /// There is no such object.
    pub fn condition(&self, lab: &Lab, kind: &str) -> Result<(String, String)> {
        condition(lab, "dpus.iaas.yusur.io", &self.object, kind)
    }

    /// The same of the host's Node: whether its DPU serves it.
    ///
    /// # Errors
    /// There is no such node.
    pub fn node_condition(&self, lab: &Lab) -> Result<(String, String)> {
        condition(lab, "nodes", &self.host, NODE_DPU_READY)
    }

    /// Waits until the DPU serves the host, and everybody says so.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait(&self, lab: &Lab, limit: Duration) -> Result<()> {
        let Self { object, host, .. } = self;
        lab.wait_for(&format!("Dpu {object} to be Ready"), limit, |lab| {
            for kind in ["Paired", "HostSeen", "Ready"] {
                let (status, why) = self.condition(lab, kind)?;
                ensure!(status == "True", "{kind} is {status:?}: {why}");
            }
            let (status, why) = self.node_condition(lab)?;
            ensure!(
                status == "True",
                "{NODE_DPU_READY} of {host} is {status:?}: {why}"
            );
            Ok(true)
        })
    }
}

fn condition(lab: &Lab, resource: &str, name: &str, kind: &str) -> Result<(String, String)> {
    let text = lab.kubectl(&["get", resource, name, "-o", "json"])?;
    let object: serde_json::Value =
        serde_json::from_str(&text).context("kubectl printed no JSON")?;
    let conditions = object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    let found = conditions.into_iter().find(|one| one["type"] == kind);
    let text = |key: &str| {
        let value = found.and_then(|one| one[key].as_str());
        value.unwrap_or_default().to_owned()
    };
    Ok((
        text("status"),
        format!("{}: {}", text("reason"), text("message")),
    ))
}

/// Says of each node what it is: by this the workloads find their nodes.
pub(crate) fn label(lab: &Lab) -> Result<()> {
    for node in lab.nodes() {
        let mode = match node.role() {
            Role::Plain => continue,
            Role::Host { .. } => MODE_HOST,
            Role::Dpu { .. } => MODE_DPU,
        };
        let label = format!("{MODE_LABEL}={mode}");
        lab.kubectl(&["label", "--overwrite", "node", node.name(), &label])?;
    }
    Ok(())
}

/// Applies the objects.
pub(crate) fn declare(lab: &Lab, pairs: &[Pair]) -> Result<()> {
    let text: String = pairs.iter().map(|pair| pair.manifest(lab)).collect();
    // The kind has just been defined.
    lab.wait_for("the Dpu objects to apply", Duration::from_secs(30), |lab| {
        lab.apply(&text).map(|_| true)
    })
}

/// Waits until every DPU serves its host.
pub(crate) fn wait(lab: &Lab) -> Result<()> {
    of(lab)
        .iter()
        .try_for_each(|pair| pair.wait(lab, Duration::from_secs(60)))
}
