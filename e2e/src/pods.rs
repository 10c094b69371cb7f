//! Pods as the API server has them, as far as checks and sweeps ask.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::lab::Lab;

/// One pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The UID that its runtime knows: of a mirror pod the static pod's.
    pub uid: String,
    /// The node it is on; empty while it is not scheduled.
    pub node: String,
    /// `status.podIPs`, IPv4 first where there is one.
    pub ips: Vec<String>,
    /// On its node's own network.
    pub host_network: bool,
    /// All containers have ended for good.
    pub completed: bool,
    /// Its Deployment's, Service's … label `app`.
    pub app: String,
}

impl Pod {
    /// `<namespace>/<name>`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The first address of a family.
    ///
    /// # Errors
    /// It has none.
    pub fn ip(&self, family: Family) -> Result<&str> {
        let wanted = self
            .ips
            .iter()
            .find(|ip| ip.contains(':') == (family == Family::V6));
        wanted.map(String::as_str).with_context(|| {
            format!(
                "pod {} has no {family:?} address: {:?}",
                self.full_name(),
                self.ips
            )
        })
    }
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// All pods of the cluster.
///
/// # Errors
/// The API server does not answer.
pub fn all(lab: &Lab) -> Result<Vec<Pod>> {
    let text = lab.kubectl(&["get", "pods", "--all-namespaces", "-o", "json"])?;
    let list: Value = serde_json::from_str(&text).context("kubectl printed no JSON")?;
    Ok(list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(read)
        .collect())
}

/// One pod.
///
/// # Errors
/// There is none of that name, or the API server does not answer.
pub fn one(lab: &Lab, namespace: &str, name: &str) -> Result<Pod> {
    let text = lab.kubectl(&["get", "pod", "-n", namespace, name, "-o", "json"])?;
    Ok(read(
        &serde_json::from_str(&text).context("kubectl printed no JSON")?,
    ))
}

/// A pod from its object.
pub(crate) fn read(object: &Value) -> Pod {
    let (meta, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mirror = text(&meta["annotations"]["kubernetes.io/config.mirror"]);
    let ips = status["podIPs"].as_array().into_iter().flatten();
    Pod {
        namespace: text(&meta["namespace"]),
        name: text(&meta["name"]),
        uid: if mirror.is_empty() {
            text(&meta["uid"])
        } else {
            mirror
        },
        node: text(&spec["nodeName"]),
        ips: ips.map(|ip| text(&ip["ip"])).collect(),
        host_network: spec["hostNetwork"].as_bool().unwrap_or_default(),
        completed: matches!(status["phase"].as_str(), Some("Succeeded" | "Failed")),
        app: text(&meta["labels"]["app"]),
    }
}
