//! OVN with the real `cni-node run` of this build on every node, and a network to attach pods to: no Kubernetes.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::cni_call::{CniCall, CniOutcome};
use crate::cni_network::LogicalNetwork;
use crate::node::Node;
use crate::ovn_lab::{OvnLab, OvnLabConfig};
use crate::process::Process;
use crate::{images, site, wait};

const DAEMON: &str = "cni-node";
const JOURNAL: &str = "/var/lib/outboard/attachments";

/// A running OVN whose chassis are set up by cni-node. Dropping it takes it down.
pub struct CniLab {
    /// Databases and nodes.
    pub ovn: OvnLab,
    /// What pods are attached to.
    pub network: LogicalNetwork,
}

/// What attachments have on a node, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    /// OVS Interfaces and Ports of pods.
    pub ports: BTreeSet<String>,
    /// Host ends of veth pairs.
    pub links: BTreeSet<String>,
    /// Files of the journal.
    pub records: BTreeSet<String>,
}

impl Remains {
    /// Whether there is nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl CniLab {
    /// Brings up everything; STATUS is fine on all nodes.
    ///
    /// # Errors
    /// A part does not come up; nothing is left then.
    pub fn up(nodes: u8) -> Result<Self> {
        Self::on(nodes, Vec::new())
    }

    /// The same with one node, `n1`, whose Open vSwitch has DPDK: pods may have vhost-user interfaces.
    ///
    /// # Errors
    /// As [`Self::up`]; or the machine has no huge pages to give.
    pub fn with_dpdk() -> Result<Self> {
        Self::on(1, vec!["n1".into()])
    }

    fn on(nodes: u8, dpdk: Vec<String>) -> Result<Self> {
        let ovn = OvnLab::up(&OvnLabConfig {
            nodes,
            dpdk,
            connect: false,
            ..OvnLabConfig::default()
        })?;
        let network = LogicalNetwork::create(&ovn.central)?;
        let lab = Self { ovn, network };
        site::in_parallel(lab.ovn.site.nodes().iter(), |node| {
            lab.start_daemon(node, &[])?;
            lab.wait_ready(node)
        })?;
        Ok(lab)
    }

    /// A node by its name.
    ///
    /// # Panics
    /// There is none.
    pub fn node(&self, name: &str) -> &Node {
        self.ovn.node(name)
    }

    /// Starts cni-node, with more variables in its environment. An earlier one must have ended.
    ///
    /// # Errors
    /// It is not built.
    pub fn start_daemon(&self, node: &Node, environment: &[(&str, &str)]) -> Result<Process> {
        let (address, _) = node.addresses();
        let sb = self.ovn.central.sb_remote();
        let program = images::program(DAEMON)?;
        let variables = environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let flags = [
            "run",
            "--node-name",
            node.name(),
            "--sb",
            &sb,
            "--encap-ip",
            &address,
            "--datapath-type",
            "netdev",
        ];
        let argv: Vec<String> = std::iter::once("env".to_string())
            .chain(variables)
            .chain(std::iter::once(program))
            .chain(flags.map(str::to_string))
            .collect();
        node.start(DAEMON, &argv)
    }

    /// Kills cni-node, if it still lives, and starts it again; STATUS is fine then.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn restart_daemon(&self, node: &Node, environment: &[(&str, &str)]) -> Result<()> {
        node.process(DAEMON).kill9()?;
        self.start_daemon(node, environment)?;
        self.wait_ready(node)
    }

    /// The running cni-node of a node.
    pub fn daemon(&self, node: &Node) -> Process {
        node.process(DAEMON)
    }

    /// Waits until STATUS is fine.
    ///
    /// # Errors
    /// It is not for half a minute: the message is its last sentence.
    pub fn wait_ready(&self, node: &Node) -> Result<()> {
        let what = format!("cni-node of {} to serve", node.name());
        wait::until(&what, Duration::from_secs(30), || {
            let status = self.status(node)?;
            ensure!(
                status.success,
                "{}{}{}",
                status.stdout,
                status.stderr,
                last_words(&self.daemon(node))
            );
            Ok(Some(()))
        })
    }

    /// What attachments have on a node.
    ///
    /// # Errors
    /// The node's database or directories cannot be read.
    pub fn remains(&self, node: &Node) -> Result<Remains> {
        let names = |text: &str| text.split_whitespace().map(str::to_string).collect();
        let mut ports: BTreeSet<String> = BTreeSet::new();
        for table in ["interface", "port"] {
            let found = [
                "ovs-vsctl",
                "--timeout=10",
                "--bare",
                "--columns=name",
                "find",
            ];
            let printed =
                node.exec(&[&found[..], &[table, "external_ids:outboard=pod"]].concat())?;
            ports.extend::<BTreeSet<String>>(names(&printed));
        }
        let links = node.exec(&["ip", "-o", "link", "show", "type", "veth"])?;
        let links = links
            .lines()
            .filter_map(|line| line.split([':', '@']).nth(1))
            .map(|name| name.trim().to_string())
            .filter(|name| name.len() == 15 && name.starts_with("ob"));
        let journal = node.path(JOURNAL);
        let entries = std::fs::read_dir(&journal)
            .with_context(|| format!("cannot read {}", journal.display()))?;
        let files = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        // The journal's own, held by the daemon that has it open.
        let records = files.filter(|name| name != ".lock");
        Ok(Remains {
            ports,
            links: links.collect(),
            records: records.collect(),
        })
    }

    /// Asks cni-node of a node for its STATUS.
    ///
    /// # Errors
    /// The plugin cannot be started.
    pub fn status(&self, node: &Node) -> Result<CniOutcome> {
        let config = r#"{"cniVersion":"1.1.0","name":"pods","type":"outboard","timeoutSeconds":5}"#;
        CniCall::new("STATUS", config).run(node)
    }
}

/// The end of a dead program's log.
fn last_words(process: &Process) -> String {
    if process.alive() {
        return String::new();
    }
    let log = process
        .log()
        .and_then(|path| Ok(std::fs::read_to_string(path)?));
    let log = log.unwrap_or_default();
    let lines: Vec<&str> = log.lines().rev().take(3).collect();
    let lines: Vec<&str> = lines.into_iter().rev().collect();
    format!(
        "it does not run any more; its log ends: {}",
        lines.join("\n")
    )
}
