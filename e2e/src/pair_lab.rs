//! A plain node, and a host behind its DPU, with the real `cni-node run` of this build in all three modes: no Kubernetes.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use api::names::{self, CHANNEL_IDENTITY_DIR, CHANNEL_ORGANIZATION, CHANNEL_PORT, DEFAULT_SUBNET};
use api::pairing::{PAIRING_FILE, Pairing};
use api::{Mac, NodeFacts, PortFacts, Role};
use ipnet::IpNet;

use crate::cni_lab::CniLab;
use crate::cni_network::LogicalNetwork;
use crate::node::Node;
use crate::ovn_lab::{OvnLab, OvnLabConfig};
use crate::pki::Authority;
use crate::process::Process;
use crate::topology::Topology;
use crate::{images, site, wait};

const DAEMON: &str = "cni-node";
/// What the lab has on every node.
const BOOT_ID: &str = "/run/outboard/boot-id";
const CARD: &str = "/run/outboard/card/dpu";

/// A running OVN with a pair. Dropping it takes it down.
pub struct PairLab {
    /// Databases, nodes and the network; its own daemon runs on the plain node alone.
    pub lab: CniLab,
    functions: u32,
}

impl PairLab {
    /// Brings up everything; STATUS is fine on the plain node and on the host, whose card has so many functions.
    ///
    /// # Errors
    /// A part does not come up; nothing is left then.
    pub fn up(functions: u32) -> Result<Self> {
        let ovn = OvnLab::up(&OvnLabConfig {
            topology: Topology::Dpu { pairs: 1 },
            connect: false,
            ..OvnLabConfig::default()
        })?;
        let network = LogicalNetwork::create(&ovn.central)?;
        let pair = Self {
            lab: CniLab { ovn, network },
            functions,
        };
        let authority = Authority::create(&pair.lab.ovn.site.dir().join("channel"), "channel-ca")?;
        for node in [pair.host(), pair.dpu()] {
            pair.introduce(node, &authority)?;
        }
        pair.schedule_gateway()?;
        pair.lab.start_daemon(pair.plain(), &[])?;
        pair.start_dpu(&[])?;
        pair.start_host(&[])?;
        site::in_parallel([pair.plain(), pair.host()].into_iter(), |node| {
            pair.lab.wait_ready(node)
        })?;
        Ok(pair)
    }

    /// The node whose pods and Open vSwitch are on one machine.
    pub fn plain(&self) -> &Node {
        self.lab.node("m")
    }

    /// The host.
    pub fn host(&self) -> &Node {
        self.lab.node("h1")
    }

    /// Its DPU.
    pub fn dpu(&self) -> &Node {
        self.lab.node("d1")
    }

    /// Starts cni-node on the host, with more variables in its environment. An earlier one must have ended.
    ///
    /// # Errors
    /// It is not built.
    pub fn start_host(&self, environment: &[(&str, &str)]) -> Result<Process> {
        let functions = self.functions.to_string();
        let flags = [
            "--card",
            "veth",
            "--card-functions",
            &functions,
            "--card-netns",
            CARD,
        ];
        start(self.host(), "host", environment, &flags)
    }

    /// Starts cni-node on the DPU, as [`Self::start_host`].
    ///
    /// # Errors
    /// It is not built.
    pub fn start_dpu(&self, environment: &[(&str, &str)]) -> Result<Process> {
        let sb = self.lab.ovn.central.sb_remote();
        let flags = [
            "--sb",
            &sb,
            "--datapath-type",
            "netdev",
            "--representors",
            "veth",
        ];
        start(self.dpu(), "dpu", environment, &flags)
    }

    /// Nothing passes any more between the host and the channel's port; both sides find that out by themselves.
    ///
    /// # Errors
    /// nft fails.
    pub fn cut(&self) -> Result<()> {
        let port = CHANNEL_PORT;
        self.host()
            .script(&format!(
                "nft -f - <<'RULES'\n\
                 table inet cut {{\n\
                 chain out {{ type filter hook output priority 0; tcp dport {port} drop; }}\n\
                 chain in {{ type filter hook input priority 0; tcp sport {port} drop; }}\n\
                 }}\nRULES"
            ))
            .map(drop)
    }

    /// Undoes [`Self::cut`].
    ///
    /// # Errors
    /// nft fails.
    pub fn heal(&self) -> Result<()> {
        self.host()
            .exec(&["nft", "delete", "table", "inet", "cut"])
            .map(drop)
    }

    /// Waits until STATUS of the host is what is wanted, and gives what it said at last.
    ///
    /// # Errors
    /// It is not in time.
    pub fn wait_status(&self, fine: bool, limit: Duration) -> Result<String> {
        let word = if fine { "serve" } else { "complain" };
        wait::until(&format!("the host to {word}"), limit, || {
            let status = self.lab.status(self.host())?;
            Ok((status.success == fine).then_some(status.stdout))
        })
    }

    /// The port of the host's own interface, as cni-controller would write it.
    fn schedule_gateway(&self) -> Result<()> {
        let ip = IpAddr::from([10, 244, 0, 9]);
        let pods = "10.244.0.0/16".parse()?;
        let facts = PortFacts {
            chassis: [self.dpu().name().to_owned()].into(),
            host: Some(self.host().name().to_owned()),
            role: Role::Node(NodeFacts {
                pod_cidrs: vec![pods],
                ..NodeFacts::default()
            }),
            subnet: DEFAULT_SUBNET.to_owned(),
            mac: Mac::of(ip),
            ips: vec![IpNet::new(ip, 16)?],
            gateways: vec![[10, 244, 0, 1].into()],
            routes: Vec::new(),
            mtu: None,
            default_route: false,
        };
        let port = names::node_port(self.host().name());
        let addresses = format!("{} {ip}", facts.mac);
        let chassis = format!("options:requested-chassis={:?}", self.dpu().name());
        let ids = facts.encode();
        let ids = ids
            .iter()
            .map(|(key, value)| format!("external_ids:{key:?}={value:?}"));
        let words = ["lsp-add", DEFAULT_SUBNET, &port, "--", "lsp-set-addresses"];
        let more = [&port, &addresses, "--", "set", "logical_switch_port", &port];
        let words = words.into_iter().chain(more).map(str::to_owned);
        let words: Vec<String> = words.chain([chassis]).chain(ids).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.lab.ovn.central.nbctl(&words).map(drop)
    }

    /// What `cni-node identity --profile channel` would have left: the certificate and the pair.
    fn introduce(&self, node: &Node, authority: &Authority) -> Result<()> {
        let name = node.name();
        let certificate =
            authority.issue(name, name, &[CHANNEL_ORGANIZATION], &[name.to_owned()])?;
        let (address, _) = self.dpu().addresses();
        let pairing = Pairing {
            dpu: self.dpu().name().to_owned(),
            host: self.host().name().to_owned(),
            address: address.parse().context("a node's address")?,
            port: CHANNEL_PORT,
            controller: None,
            uid: "uid-pair".to_owned(),
        };
        let files = [
            ("tls.key", fs::read_to_string(&certificate.key)?),
            ("tls.crt", fs::read_to_string(&certificate.certificate)?),
            ("ca.crt", fs::read_to_string(&authority.certificate)?),
            (PAIRING_FILE, pairing.to_string()),
        ];
        for (file, text) in files {
            node.write(&format!("{CHANNEL_IDENTITY_DIR}/{file}"), &text)?;
        }
        node.script(&format!(
            "chmod 700 {CHANNEL_IDENTITY_DIR}; chmod 600 {CHANNEL_IDENTITY_DIR}/tls.key"
        ))
        .map(drop)
    }
}

fn start(node: &Node, mode: &str, environment: &[(&str, &str)], more: &[&str]) -> Result<Process> {
    let (address, _) = node.addresses();
    let program = images::program(DAEMON)?;
    let flags = [
        "run",
        "--mode",
        mode,
        "--node-name",
        node.name(),
        "--encap-ip",
        &address,
        "--boot-id-file",
        BOOT_ID,
    ];
    let argv: Vec<String> = std::iter::once("env".to_owned())
        .chain(
            environment
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        )
        .chain(std::iter::once(program))
        .chain(flags.iter().chain(more).map(|word| (*word).to_owned()))
        .collect();
    node.start(DAEMON, &argv)
}
