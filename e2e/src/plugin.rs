//! Calls of the plugin as the runtime makes them, for sandboxes that kubelet does not know of.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::delegate::Sandbox;
use crate::node::Node;
use crate::pods::Pod;
use crate::wait::until;

const CONFLIST: &str = "/etc/cni/net.d/05-outboard.conflist";
const PLUGIN: &str = "/opt/cni/bin/outboard";
const NAME: &str = "second";

/// A network namespace that could be a second sandbox of a pod. Removed with the value.
pub struct SecondSandbox<'a> {
    node: &'a Node,
    sandbox: Sandbox,
    result: std::cell::RefCell<Option<Value>>,
}

impl<'a> SecondSandbox<'a> {
    /// Makes it, on this node.
    ///
    /// # Errors
    /// There is one already.
    pub fn create(node: &'a Node) -> Result<Self> {
        node.exec(&["ip", "netns", "add", NAME])?;
        let sandbox = Sandbox {
            id: "5ec0nd".repeat(8),
            netns: format!("/run/netns/{NAME}"),
        };
        Ok(Self {
            node,
            sandbox,
            result: std::cell::RefCell::default(),
        })
    }

    /// CNI_CONTAINERID.
    pub fn id(&self) -> &str {
        &self.sandbox.id
    }

    /// A verb for it as the given pod's `eth0`; CHECK and DEL get what ADD gave.
    ///
    /// # Errors
    /// The plugin's own.
    pub fn call(&self, verb: &str, pod: &Pod) -> Result<Value> {
        let previous = self.result.borrow().clone();
        let result = exec(self.node, verb, &self.sandbox, pod, previous)?;
        if verb == "ADD" {
            *self.result.borrow_mut() = Some(result.clone());
        }
        Ok(result)
    }

    /// Asks a web server from within, for some seconds if need be.
    ///
    /// # Errors
    /// Nobody, or somebody else, answers.
    pub fn fetch(&self, address: &str, expected: &str) -> Result<()> {
        let url = if address.contains(':') {
            format!("http://[{address}]/")
        } else {
            format!("http://{address}/")
        };
        let argv = [
            "ip", "netns", "exec", NAME, "curl", "-sS", "--fail", "-g", "-m", "3", &url,
        ];
        until(
            &format!("an answer of {address}"),
            Duration::from_secs(20),
            || {
                let said = self.node.exec(&argv)?;
                ensure!(said == expected, "{said:?} answered");
                Ok(Some(()))
            },
        )
    }
}

impl Drop for SecondSandbox<'_> {
    fn drop(&mut self) {
        let _ = self.node.exec(&["ip", "netns", "delete", NAME]);
    }
}

/// A verb for a sandbox of kubelet's.
///
/// # Errors
/// The plugin's own.
pub fn call(node: &Node, verb: &str, sandbox: &Sandbox, pod: &Pod) -> Result<Value> {
    exec(node, verb, sandbox, pod, None)
}

fn exec(
    node: &Node,
    verb: &str,
    sandbox: &Sandbox,
    pod: &Pod,
    previous: Option<Value>,
) -> Result<Value> {
    let list: Value = serde_json::from_str(&node.exec(&["cat", CONFLIST])?)
        .with_context(|| format!("{CONFLIST} is no JSON"))?;
    let mut config = list["plugins"][0].clone();
    config["name"] = list["name"].clone();
    config["cniVersion"] = list["cniVersion"].clone();
    if let Some(previous) = previous {
        config["prevResult"] = previous;
    }
    let arguments = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        pod.namespace, pod.name, sandbox.id, pod.uid
    );
    let mut child = node
        .command(PLUGIN)
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", &sandbox.id)
        .env("CNI_NETNS", &sandbox.netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_ARGS", arguments)
        .env("CNI_PATH", "/opt/cni/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("the plugin cannot be started")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(config.to_string().as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("{verb}: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).with_context(|| format!("{verb} printed {text}"))
}

/// The addresses of a CNI result, without prefix.
pub fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().into_iter().flatten();
    ips.filter_map(|ip| Some(ip["address"].as_str()?.split('/').next()?.to_owned()))
        .collect()
}

/// The sandboxes of the OVS interfaces that a pod has on a node.
///
/// # Errors
/// Open vSwitch does not answer.
pub fn interfaces(node: &Node, uid: &str) -> Result<Vec<String>> {
    let find = format!("external_ids:uid={uid}");
    let argv = [
        "ovs-vsctl",
        "--bare",
        "--columns=name",
        "find",
        "Interface",
        "external_ids:outboard=pod",
        &find,
    ];
    let names = node.exec(&argv)?;
    let sandbox = |name: &str| {
        let text = node.exec(&[
            "ovs-vsctl",
            "get",
            "Interface",
            name,
            "external_ids:sandbox",
        ])?;
        Ok(text.trim_matches('"').to_owned())
    };
    names.split_whitespace().map(sandbox).collect()
}
