//! A pod sandbox without a container: a named network namespace of a node.

use anyhow::Result;
use serde_json::Value;

use crate::node::Node;

/// A network namespace in the node's /run/netns. Dropping it removes it.
#[derive(Debug)]
pub struct CniSandbox<'a> {
    node: &'a Node,
    /// CNI_CONTAINERID; also the namespace's name.
    pub container: String,
}

impl<'a> CniSandbox<'a> {
    /// Makes the namespace.
    ///
    /// # Errors
    /// The name is taken.
    pub fn create(node: &'a Node, container: &str) -> Result<Self> {
        node.exec(&["ip", "netns", "add", container])?;
        Ok(Self {
            node,
            container: container.into(),
        })
    }

    /// Its path in the node, for CNI_NETNS.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.container)
    }

    /// Its node.
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// Runs a command inside.
    ///
    /// # Errors
    /// As [`crate::run`].
    pub fn exec(&self, argv: &[&str]) -> Result<String> {
        let netns = format!("--net={}", self.path());
        self.node.exec(&[&["nsenter", &netns, "--"], argv].concat())
    }

    /// What `ip -json` prints inside.
    ///
    /// # Errors
    /// As [`crate::run`].
    pub fn ip(&self, arguments: &[&str]) -> Result<Value> {
        let printed = self.exec(&[&["ip", "-json", "-details"], arguments].concat())?;
        Ok(serde_json::from_str(if printed.is_empty() {
            "[]"
        } else {
            &printed
        })?)
    }

    /// Pings an address once.
    ///
    /// # Errors
    /// No answer within a second.
    pub fn ping(&self, address: &str) -> Result<()> {
        self.exec(&["ping", "-n", "-c1", "-W1", address]).map(drop)
    }

    /// Removes the namespace now, as a runtime does it after the DEL (or before, when it goes wrong).
    ///
    /// # Errors
    /// As [`crate::run`].
    pub fn remove(&self) -> Result<()> {
        self.node
            .exec(&["ip", "netns", "delete", &self.container])
            .map(drop)
    }
}

impl Drop for CniSandbox<'_> {
    fn drop(&mut self) {
        // Gone already in most tests; the lab's end takes the rest.
        if std::env::var_os("OUTBOARD_LAB_KEEP").is_none() {
            let _ = self.remove();
        }
    }
}
