//! One exec of the real plugin in a node: what a container runtime does.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cni_network::PodRow;
use crate::cni_sandbox::CniSandbox;
use crate::images;
use crate::node::Node;

/// A call: the verb, its variables, its standard input.
#[derive(Debug, Clone)]
pub struct CniCall {
    env: BTreeMap<String, String>,
    config: Vec<u8>,
}

/// What a plugin, or `cnitool`, printed.
#[derive(Debug, Clone)]
pub struct CniOutcome {
    /// Whether it exited with 0.
    pub success: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl CniCall {
    /// A call of a verb with a configuration.
    pub fn new(command: &str, config: impl Into<Vec<u8>>) -> Self {
        let call = Self {
            env: BTreeMap::new(),
            config: config.into(),
        };
        call.env("CNI_COMMAND", command)
            .env("CNI_PATH", "/opt/cni/bin")
    }

    /// Sets a variable; empty removes it.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        if value.is_empty() {
            self.env.remove(name);
        } else {
            self.env.insert(name.into(), value.into());
        }
        self
    }

    /// Names the attachment: container, interface and pod of `row`, in `sandbox`.
    #[must_use]
    pub fn of(self, sandbox: &CniSandbox<'_>, row: &PodRow) -> Self {
        self.env("CNI_CONTAINERID", &sandbox.container)
            .env("CNI_NETNS", &sandbox.path())
            .env("CNI_IFNAME", &row.spec.ifname)
            .env("CNI_ARGS", &row.arguments(&sandbox.container))
    }

    /// Runs the plugin `outboard` of this build in the node.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, node: &Node) -> Result<CniOutcome> {
        self.exec(node, &images::program("outboard")?, &[])
    }

    /// Runs `cnitool <verb> <network> <netns>`: the configuration is the conflist.
    ///
    /// # Errors
    /// It cannot be started, or the conflist not written.
    pub fn cnitool(
        &self,
        node: &Node,
        network: &str,
        sandbox: &CniSandbox<'_>,
    ) -> Result<CniOutcome> {
        let verb = self.env["CNI_COMMAND"].to_lowercase();
        let tool = images::tool("cnitool")?;
        let dir = format!("/etc/cni/{network}");
        let plugins = [images::program("outboard")?, tool.clone()].map(|path| {
            let end = path.rfind('/').unwrap_or_default();
            path[..end].to_string()
        });
        let text = String::from_utf8(self.config.clone()).context("a conflist is text")?;
        node.write(&format!("{dir}/10.conflist"), &text)?;
        let call = self
            .clone()
            .env("CNI_COMMAND", "")
            .env("CNI_CONTAINERID", "")
            .env("CNI_NETNS", "")
            .env("CNI_PATH", &plugins.join(":"))
            .env("NETCONFPATH", &dir);
        call.exec(node, &tool, &[&verb, network, &sandbox.path()])
    }

    fn exec(&self, node: &Node, program: &str, arguments: &[&str]) -> Result<CniOutcome> {
        let mut child = node
            .command(program)
            .args(arguments)
            .envs(&self.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that refuses its environment need not read its configuration.
            let _ = stdin.write_all(&self.config);
        }
        let Output {
            status,
            stdout,
            stderr,
        } = child.wait_with_output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(CniOutcome {
            success: status.success(),
            stdout: text(stdout),
            stderr: text(stderr),
        })
    }
}

impl CniOutcome {
    /// What a successful call printed; null when nothing.
    ///
    /// # Errors
    /// The call failed (with what it said), or printed no JSON.
    pub fn result(&self) -> Result<Value> {
        ensure!(
            self.success,
            "the call failed: {}{}",
            self.stdout,
            self.stderr
        );
        if self.stdout.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON: {}", self.stdout))
    }

    /// Asserts a CNI error: exit code, code, parts of the sentence (object and cause) and of the remedy. Returns it.
    ///
    /// # Panics
    /// It is another one, or none.
    #[track_caller]
    pub fn refused(&self, code: u64, sentence: &[&str], remedy: &str) -> Value {
        assert!(!self.success, "the call should have failed: {self:?}");
        let error: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|why| panic!("no CNI error ({why}): {self:?}"));
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_string();
        assert_eq!(error["code"], code, "{error}");
        assert!(error["cniVersion"].is_string(), "{error}");
        for part in sentence {
            assert!(
                text("msg").contains(part),
                "{part:?} is not in the sentence: {error}"
            );
        }
        assert!(
            text("details").contains(remedy) && !text("details").is_empty(),
            "{remedy:?} is not in the remedy: {error}"
        );
        error
    }
}
