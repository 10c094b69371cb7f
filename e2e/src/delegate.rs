//! A second interface, made the way Multus makes it: the plugin is executed on the node for a sandbox that is there, with
//! the NetworkAttachmentDefinition's configuration, the interface's name and the pod's identity.
//!
//! Multus itself is on no registry that the lab can use; what it does for a delegate is this one call.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::node::Node;
use crate::pods::{self, Pod};
use crate::shell;

/// Where Multus has plugins write what they say of a device.
const DEVICE_INFO: &str = "/var/run/k8s.cni.cncf.io/devinfo/cni";

/// One interface of one sandbox.
pub struct Delegate<'a> {
    node: &'a Node,
    pod: Pod,
    ifname: String,
    sandbox: Sandbox,
    config: Value,
}

/// What containerd knows of a pod's sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// CNI_CONTAINERID.
    pub id: String,
    /// CNI_NETNS.
    pub netns: String,
}

impl<'a> Delegate<'a> {
    /// Interface `ifname` of a running pod, in the network that a NetworkAttachmentDefinition of its namespace describes.
    ///
    /// # Errors
    /// The pod, its sandbox or the definition is not there.
    pub fn new(
        lab: &'a Lab,
        namespace: &str,
        pod: &str,
        ifname: &str,
        definition: &str,
    ) -> Result<Self> {
        let pod = pods::one(lab, namespace, pod)?;
        let node = lab.node(&pod.node);
        let config = lab.kubectl(&[
            "get",
            "network-attachment-definitions",
            "-n",
            namespace,
            definition,
            "-o",
            "jsonpath={.spec.config}",
        ])?;
        let mut config: Value = serde_json::from_str(&config)
            .with_context(|| format!("NetworkAttachmentDefinition {definition}: {config}"))?;
        if config["capabilities"]["CNIDeviceInfoFile"] == json!(true) {
            let file = format!(
                "{DEVICE_INFO}/{namespace}-{pod}-{ifname}.json",
                pod = pod.name
            );
            config["runtimeConfig"]["CNIDeviceInfoFile"] = json!(file);
        }
        Ok(Self {
            sandbox: sandbox(node, &pod.uid)?,
            config,
            ifname: ifname.into(),
            node,
            pod,
        })
    }

    /// ADD: the plugin's result.
    ///
    /// # Errors
    /// The plugin's own, or its result is not JSON.
    pub fn add(&self) -> Result<Value> {
        let printed = self.call("ADD", &self.config)?;
        serde_json::from_str(&printed).with_context(|| format!("ADD printed no JSON: {printed}"))
    }

    /// DEL, with the result of the ADD where there was one.
    ///
    /// # Errors
    /// The plugin's own.
    pub fn del(&self, result: Option<&Value>) -> Result<()> {
        let mut config = self.config.clone();
        if let Some(result) = result {
            config["prevResult"] = json!(result);
        }
        self.call("DEL", &config).map(drop)
    }

    /// CHECK, with the result of the ADD.
    ///
    /// # Errors
    /// The plugin's own.
    pub fn check(&self, result: &Value) -> Result<()> {
        let mut config = self.config.clone();
        config["prevResult"] = json!(result);
        self.call("CHECK", &config).map(drop)
    }

    /// What the plugin has said of the interface's device, as it stands in its file; none where there is no file.
    ///
    /// # Errors
    /// The definition asks for none, or the file holds no JSON.
    pub fn device_info(&self) -> Result<Option<Value>> {
        let file = self.config["runtimeConfig"]["CNIDeviceInfoFile"]
            .as_str()
            .context("the definition lacks the capability CNIDeviceInfoFile")?;
        let text = self
            .node
            .script(&format!("[ ! -e {file} ] || cat {file}"))?;
        if text.is_empty() {
            return Ok(None);
        }
        let info = serde_json::from_str(&text).with_context(|| format!("{file} is no JSON"))?;
        Ok(Some(info))
    }

    fn call(&self, verb: &str, config: &Value) -> Result<String> {
        let pod = &self.pod;
        let mut command: Command = self.node.command("env");
        command.args([
            format!("CNI_COMMAND={verb}"),
            format!("CNI_CONTAINERID={}", self.sandbox.id),
            format!("CNI_NETNS={}", self.sandbox.netns),
            format!("CNI_IFNAME={}", self.ifname),
            "CNI_PATH=/opt/cni/bin".into(),
            format!(
                "CNI_ARGS=IgnoreUnknown=true;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
                pod.namespace, pod.name, self.sandbox.id, pod.uid
            ),
            "/opt/cni/bin/outboard".into(),
        ]);
        shell::finish(&mut command, Some(&config.to_string()))
    }
}

/// The sandbox of a pod.
///
/// # Errors
/// containerd has none, or more than one.
pub fn sandbox(node: &Node, uid: &str) -> Result<Sandbox> {
    let filter = format!(
        "labels.\"io.kubernetes.pod.uid\"=={uid},labels.\"io.cri-containerd.kind\"==sandbox"
    );
    let listed = node.exec(&["ctr", "-n", "k8s.io", "containers", "ls", "-q", &filter])?;
    let mut ids: Vec<&str> = listed.lines().collect();
    if ids.len() > 1 {
        // One that a reboot ended is remembered for a while.
        let tasks = node.exec(&["ctr", "-n", "k8s.io", "tasks", "list"])?;
        let runs = |id: &str| {
            let mut lines = tasks.lines();
            lines.any(|line| line.starts_with(id) && line.contains("RUNNING"))
        };
        ids.retain(|id| runs(id));
    }
    let [id] = ids.as_slice() else {
        anyhow::bail!(
            "pod {uid} has {} sandboxes on node {}: {ids:?}",
            ids.len(),
            node.name()
        );
    };
    let text = node.exec(&["ctr", "-n", "k8s.io", "containers", "info", "--spec", id])?;
    let spec: Value = serde_json::from_str(&text).context("ctr printed no JSON")?;
    let spaces = spec["linux"]["namespaces"].as_array().into_iter().flatten();
    let netns = spaces
        .filter(|space| space["type"] == "network")
        .find_map(|space| space["path"].as_str());
    Ok(Sandbox {
        id: (*id).to_owned(),
        netns: netns
            .with_context(|| format!("sandbox {id} has no network namespace: {text}"))?
            .to_owned(),
    })
}
