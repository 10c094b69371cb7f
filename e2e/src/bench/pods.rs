//! Pod sandboxes of one node, attached and detached by the real plugins as a container runtime does it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use ovsdb::Uuid;
use serde_json::json;

use super::Bench;
use super::ports::{Databases, Port};
use super::stopwatch::{Job, Stopwatch};
use crate::central::Central;
use crate::cni_lab::CniLab;
use crate::images;
use crate::node::Node;

/// Whose plugin attaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plugin {
    /// Outboard, as the pod's first interface.
    Outboard,
    /// bridge with host-local, as the pod's first interface.
    Bridge,
    /// The same, as a second interface beside Outboard's: it has no default route.
    SecondBridge,
}

/// A pod with a network namespace and a logical port.
pub(super) struct Pod {
    pub(super) port: Port,
    pub(super) row: Uuid,
}

impl Pod {
    /// Name of the sandbox and of its network namespace.
    pub(super) fn container(&self) -> &str {
        &self.port.pod.name
    }
}

/// A node and what is on it.
pub(super) struct Pods<'a> {
    bench: &'a Bench,
    pub(super) databases: Databases,
    pub(super) stopwatch: Stopwatch,
    chassis: String,
    host: Option<String>,
    outboard: String,
    tools: String,
    bridge: String,
    next: u16,
    filled: u16,
}

/// Where pods are.
pub(super) struct Place<'a> {
    /// Their sandboxes.
    pub(super) node: &'a Node,
    /// Their ports.
    pub(super) chassis: &'a str,
    /// The node behind the chassis, if it is not the chassis's own.
    pub(super) host: Option<&'a str>,
    /// The number of the first one.
    pub(super) first: u16,
}

impl<'a> Pods<'a> {
    pub(super) fn new(bench: &'a Bench, lab: &CniLab) -> Result<Self> {
        let node = node(lab);
        let place = Place {
            node,
            chassis: node.name(),
            host: None,
            // The lab's own network hands out the lower ones.
            first: 1000,
        };
        Self::at(bench, &lab.ovn.central, &place)
    }

    /// Pods of a place; those of two places have numbers of their own.
    pub(super) fn at(bench: &'a Bench, central: &Central, place: &Place<'_>) -> Result<Self> {
        let _runtime = bench.runtime.enter();
        let bridge = images::tool("bridge")?;
        let (tools, _) = bridge.rsplit_once('/').context("a tool has a directory")?;
        Ok(Self {
            bench,
            databases: Databases::connect(central, place.chassis)?,
            stopwatch: Stopwatch::inside(place.node)?,
            chassis: place.chassis.to_owned(),
            host: place.host.map(str::to_owned),
            outboard: images::program("outboard")?,
            tools: tools.to_owned(),
            bridge,
            next: place.first,
            filled: 0,
        })
    }

    /// A port that is not in any database yet.
    pub(super) fn port(&mut self) -> Port {
        self.next += 1;
        let mut port = Port::new(self.next, &self.chassis);
        port.facts.host.clone_from(&self.host);
        port
    }

    /// Pods with logical ports and empty sandboxes; OVN has nothing left to do.
    pub(super) fn create(&mut self, count: u16) -> Result<Vec<Pod>> {
        let ports: Vec<Port> = (0..count).map(|_| self.port()).collect();
        let rows = self.bench.runtime.block_on(self.databases.add(&ports))?;
        let pods = ports
            .into_iter()
            .zip(rows)
            .map(|(port, row)| Pod { port, row });
        let pods: Vec<Pod> = pods.collect();
        let lines = pods
            .iter()
            .map(|pod| format!("netns add {}\n", pod.container()));
        self.stopwatch
            .run(&["ip", "-batch", "-"], &lines.collect::<String>())?;
        Ok(pods)
    }

    /// Removes pods that are detached already.
    pub(super) fn remove(&mut self, pods: &[Pod]) -> Result<()> {
        let lines = pods
            .iter()
            .map(|pod| format!("netns delete {}\n", pod.container()));
        self.stopwatch
            .run(&["ip", "-batch", "-"], &lines.collect::<String>())?;
        let rows: Vec<Uuid> = pods.iter().map(|pod| pod.row).collect();
        self.bench.runtime.block_on(self.databases.remove(&rows))
    }

    /// Attaches pods until there are `count`; with the bridge too, if that is compared with.
    pub(super) fn fill(&mut self, count: u16, with_bridge: bool) -> Result<()> {
        for pod in self.create(count.saturating_sub(self.filled))? {
            self.call("ADD", Plugin::Outboard, &pod)?;
            if with_bridge {
                self.call("ADD", Plugin::SecondBridge, &pod)?;
            }
        }
        self.filled = self.filled.max(count);
        self.bench.runtime.block_on(self.databases.settle())
    }

    /// Executes a plugin; its time.
    pub(super) fn call(&mut self, verb: &str, plugin: Plugin, pod: &Pod) -> Result<Duration> {
        let job = self.job(verb, plugin, pod);
        let (time, _) = self
            .stopwatch
            .time(&job)
            .with_context(|| format!("{verb} of pod {} by {plugin:?}", pod.container()))?;
        Ok(time)
    }

    fn job(&self, verb: &str, plugin: Plugin, pod: &Pod) -> Job {
        let facts = &pod.port.pod;
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            facts.namespace,
            facts.name,
            pod.container(),
            facts.uid
        );
        let ifname = if plugin == Plugin::SecondBridge {
            "eth1"
        } else {
            "eth0"
        };
        let netns = format!("/run/netns/{}", pod.container());
        let env = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", pod.container()),
            ("CNI_NETNS", &netns),
            ("CNI_IFNAME", ifname),
            ("CNI_PATH", &self.tools),
            ("CNI_ARGS", &arguments),
        ];
        let program = if plugin == Plugin::Outboard {
            &self.outboard
        } else {
            &self.bridge
        };
        Job {
            argv: vec![program.clone()],
            env: env
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            input: plugin.config().to_string(),
        }
    }
}

impl Plugin {
    fn config(self) -> serde_json::Value {
        let routes = if self == Self::Bridge {
            json!([{"dst": "0.0.0.0/0"}])
        } else {
            json!([])
        };
        match self {
            Self::Outboard => json!({
                "cniVersion": "1.0.0", "name": "pods", "type": "outboard", "timeoutSeconds": 20,
            }),
            Self::Bridge | Self::SecondBridge => json!({
                "cniVersion": "1.0.0", "name": "bench-bridge", "type": "bridge",
                "bridge": "cni0", "isGateway": true, "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": "10.200.0.0/16"}]],
                    "routes": routes,
                },
            }),
        }
    }
}

/// The node that all of it is on.
pub(super) fn node(lab: &CniLab) -> &Node {
    lab.node("n1")
}
