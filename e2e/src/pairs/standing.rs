//! A pod that is there to stay: what would be another if it were made anew.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::delegate::{Sandbox, sandbox};
use crate::lab::Lab;
use crate::pods::{self, Pod};
use crate::site;

/// A pod that is there to stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What the API server knows.
    pub pod: Pod,
    /// What the runtime knows: another one means that the pod was made anew.
    pub sandbox: Sandbox,
    /// Its interface: `<MAC> <addresses>`.
    pub interface: String,
    /// Containers' restarts.
    pub restarts: Vec<u64>,
}

impl Standing {
    /// A pod as it is now.
    ///
    /// # Errors
    /// There is none, or it has no sandbox or no interface.
    pub fn of(lab: &Lab, namespace: &str, name: &str) -> Result<Self> {
        Self::look(lab, &asked(lab, &["pod", "-n", namespace, name])?)
    }

    /// All pods of a namespace as they are now, by name.
    ///
    /// # Errors
    /// One has no sandbox or no interface.
    pub fn all(lab: &Lab, namespace: &str) -> Result<Vec<Self>> {
        let list = asked(lab, &["pods", "-n", namespace])?;
        let objects = list["items"].as_array().into_iter().flatten();
        site::in_parallel(objects, |object| Self::look(lab, object))
    }

    fn look(lab: &Lab, object: &Value) -> Result<Self> {
        let pod = pods::read(object);
        let node = lab.node(&pod.node);
        let sandbox = sandbox(node, &pod.uid)?;
        let netns = format!("--net={}", sandbox.netns);
        let addresses = "ip -o link show eth0 | sed -n 's/.*link.ether \\([^ ]*\\).*/\\1/p'; \
                         ip -o addr show eth0 scope global | sed 's/.*inet6* \\([^ ]*\\).*/\\1/'";
        let interface = node.exec(&["nsenter", &netns, "sh", "-ec", addresses])?;
        let statuses = object["status"]["containerStatuses"].as_array();
        let restarts = statuses
            .into_iter()
            .flatten()
            .filter_map(|one| one["restartCount"].as_u64());
        Ok(Self {
            pod,
            sandbox,
            interface: interface.replace('\n', " "),
            restarts: restarts.collect(),
        })
    }
}

fn asked(lab: &Lab, what: &[&str]) -> Result<Value> {
    let text = lab.kubectl(&[&["get", "-o", "json"], what].concat())?;
    serde_json::from_str(&text).context("kubectl printed no JSON")
}
