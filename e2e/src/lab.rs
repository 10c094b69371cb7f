//! A Kubernetes cluster on real OVN: brought up, asked, taken down.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use crate::central::{Central, CentralConfig};
use crate::clock::Clock;
use crate::control_plane::ControlPlane;
use crate::images::{self, Set};
use crate::node::Node;
use crate::site::{self, Site, SiteConfig};
use crate::topology::Topology;
use crate::{env_file, evidence, install, kubelet, pairs, shell, uplink, wait};

/// Whose network pods get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Outboard, installed by its own manifests, with CoreDNS.
    Outboard,
    /// The reference bridge plugin: no Outboard in the lab.
    Bridge,
}

/// What cluster is wanted.
#[derive(Debug, Clone)]
pub struct LabConfig {
    /// Id and nodes.
    pub site: SiteConfig,
    /// NB as one server or three.
    pub central: CentralConfig,
    /// Whose network.
    pub network: Network,
    /// Whether Outboard's storage is installed, too (with Outboard's network): the master is the target.
    pub storage: bool,
    /// How many functions the emulated card of a host has.
    pub card_functions: u32,
    /// Whether pods may be those of VMs: their sidecar's image is in every node. So it is where a node has DPDK.
    pub vms: bool,
}

impl Default for LabConfig {
    fn default() -> Self {
        Self {
            site: SiteConfig::default(),
            central: CentralConfig::default(),
            network: Network::Outboard,
            storage: false,
            card_functions: 32,
            vms: false,
        }
    }
}

impl LabConfig {
    /// A master and hosts behind DPUs, with Outboard's network.
    pub fn dpu(id: Option<u8>, pairs: u8) -> Self {
        Self {
            site: SiteConfig {
                id,
                topology: Topology::Dpu { pairs },
                ..SiteConfig::default()
            },
            ..Self::default()
        }
    }
}

/// A running cluster. Dropping it takes it down (see [`Site`]).
pub struct Lab {
    /// The ground: nodes, addresses, the outside host.
    pub site: Site,
    /// OVN's databases.
    pub central: Central,
    plane: ControlPlane,
    kubectl: String,
    clock: Clock,
}

impl Lab {
    /// Brings a cluster up and waits until its nodes are Ready and its system pods run. Says on standard error what it does.
    ///
    /// # Errors
    /// A part does not come up; the message names it and nothing is left (logs neither: `OUTBOARD_LAB_KEEP=1` keeps them).
    pub fn up(config: &LabConfig) -> Result<Self> {
        let clock = Clock::start();
        let set = match (config.network, config.storage) {
            (Network::Outboard, true) => Set::Storage,
            (Network::Outboard, false) => Set::Outboard,
            (Network::Bridge, false) => Set::Plain,
            (Network::Bridge, true) => {
                anyhow::bail!("the lab's storage needs Services, and so Outboard's network")
            }
        };
        let vms = config.vms || !config.site.dpdk.is_empty();
        let archives = std::thread::spawn(move || images::build(set, vms));
        let site = Site::create(&config.site)?;
        clock.say(site.id(), "namespaces and wires");
        site::in_parallel(site.nodes().iter(), uplink::of_node)?;
        clock.say(site.id(), "Open vSwitch");
        let (central, plane) = std::thread::scope(|scope| {
            let plane = scope.spawn(|| ControlPlane::start(site.master()));
            let runtimes =
                scope.spawn(|| site::in_parallel(site.nodes().iter(), kubelet::containerd));
            let central = Central::start(site.master(), config.central);
            clock.say(site.id(), "OVN databases and northd");
            runtimes.join().map_err(panicked)??;
            anyhow::Ok((central?, plane.join().map_err(panicked)??))
        })?;
        let archives = archives.join().map_err(panicked)??;
        clock.say(site.id(), "containerd, images built");
        site::in_parallel(site.nodes().iter(), |node| {
            images::import(node, node.name() == site.master().name(), &archives)
        })?;
        clock.say(site.id(), "images imported");
        plane.wait()?;
        plane.controllers(site.master())?;
        clock.say(site.id(), "API server");
        let lab = Self {
            site,
            central,
            plane,
            kubectl: images::tool("kubectl")?,
            clock,
        };
        match lab.start_nodes(config) {
            Ok(()) => Ok(lab),
            Err(error) if config.network == Network::Outboard => {
                Err(anyhow!("{error:#}\n{}", evidence::of_cluster(&lab)))
            }
            Err(error) => Err(error),
        }
    }

    fn start_nodes(&self, config: &LabConfig) -> Result<()> {
        let network = config.network;
        for node in self.nodes() {
            if network == Network::Bridge {
                kubelet::bridge_network(node)?;
            }
            kubelet::start(node, &self.plane)?;
        }
        self.wait_for("nodes to register", Duration::from_secs(60), |lab| {
            let listed = lab.kubectl(&["get", "nodes", "-o", "name"])?;
            Ok(listed.lines().count() == lab.nodes().len())
        })?;
        self.kubectl(&[
            "label",
            "--overwrite",
            "node",
            self.site.master().name(),
            "node-role.kubernetes.io/control-plane=",
        ])?;
        pairs::label(self)?;
        self.say("kubelets");
        if network == Network::Outboard {
            install::outboard(self, config)?;
            self.say("Outboard applied");
        }
        if config.storage {
            install::storage(self)?;
            self.say("storage applied");
        }
        self.kubectl(&[
            "wait",
            "--for=condition=Ready",
            "nodes",
            "--all",
            "--timeout=180s",
        ])?;
        self.say("nodes Ready");
        if network == Network::Outboard {
            install::wait(self)?;
            self.say("Outboard and CoreDNS run");
        }
        if config.storage {
            install::wait_for_storage(self)?;
            self.say("storage runs");
        }
        self.kubectl_until_ok(
            "the default service account",
            &["get", "serviceaccount", "default"],
        )
    }

    /// All nodes, the master first.
    pub fn nodes(&self) -> &[Node] {
        self.site.nodes()
    }

    /// A node by its name.
    ///
    /// # Panics
    /// The lab has no such node.
    pub fn node(&self, name: &str) -> &Node {
        self.site.node(name)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.plane.kubeconfig.clone()
    }

    /// `https://…`, the API server's real address.
    pub fn api_server(&self) -> &str {
        &self.plane.server
    }

    /// Runs kubectl as administrator.
    ///
    /// # Errors
    /// As [`crate::run`].
    pub fn kubectl<S: AsRef<str>>(&self, arguments: &[S]) -> Result<String> {
        shell::run(&self.kubectl_line(arguments))
    }

    /// Applies manifests given as text.
    ///
    /// # Errors
    /// As [`crate::run`].
    pub fn apply(&self, yaml: &str) -> Result<String> {
        shell::run_with_input(&self.kubectl_line(&["apply", "-f", "-"]), yaml)
    }

    /// Runs a command in a pod's first container.
    ///
    /// # Errors
    /// As [`crate::run`].
    pub fn pod_exec(&self, namespace: &str, pod: &str, argv: &[&str]) -> Result<String> {
        self.kubectl(&[&["exec", "-n", namespace, pod, "--"], argv].concat())
    }

    /// Runs ovn-nbctl.
    ///
    /// # Errors
    /// As [`crate::run`].
    pub fn nbctl(&self, arguments: &[&str]) -> Result<String> {
        self.central.nbctl(arguments)
    }

    /// Runs ovn-sbctl.
    ///
    /// # Errors
    /// As [`crate::run`].
    pub fn sbctl(&self, arguments: &[&str]) -> Result<String> {
        self.central.sbctl(arguments)
    }

    /// Waits for a condition; see [`crate::until`].
    ///
    /// # Errors
    /// It did not come true in time.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&Self) -> Result<bool>,
    ) -> Result<()> {
        wait::until_true(what, limit, || condition(self))
    }

    /// Waits until a pod is Ready.
    ///
    /// # Errors
    /// It is not in time: the message ends with the pod's events.
    pub fn wait_ready(&self, namespace: &str, pod: &str, limit: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", limit.as_secs());
        self.kubectl(&[
            "wait",
            "-n",
            namespace,
            "--for=condition=Ready",
            &format!("pod/{pod}"),
            &timeout,
        ])
        .map(drop)
        .with_context(|| {
            self.kubectl(&["events", "-n", namespace, "--for", &format!("pod/{pod}")])
                .unwrap_or_default()
        })
    }

    /// The busybox image that is in every node.
    pub fn image(&self) -> &'static str {
        images::BUSYBOX
    }

    /// The hook sidecar for VMs; in every node of a lab that has one with DPDK, or [`LabConfig::vms`].
    pub fn shim_image(&self) -> &'static str {
        images::SHIM
    }

    /// What does nothing, for any user: in every node.
    pub fn pause_image(&self) -> &'static str {
        images::PAUSE
    }

    /// The lab's environment file, as shell text.
    ///
    /// # Errors
    /// The kubeconfig is gone.
    pub fn environment(&self) -> Result<String> {
        env_file::text(self)
    }

    /// Leaves the lab up when this program ends.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub fn keep(&mut self) -> Result<()> {
        self.site.keep()
    }

    pub(crate) fn kubectl_until_ok(&self, what: &str, arguments: &[&str]) -> Result<()> {
        self.wait_for(what, Duration::from_secs(60), |lab| {
            lab.kubectl(arguments).map(|_| true)
        })
    }

    /// Says on standard error, with the time since the lab's start, what is done.
    pub(crate) fn say(&self, what: &str) {
        self.clock.say(self.site.id(), what);
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    fn kubectl_line<S: AsRef<str>>(&self, arguments: &[S]) -> Vec<String> {
        let config = format!("--kubeconfig={}", self.plane.kubeconfig.display());
        let rest = arguments.iter().map(|a| a.as_ref().to_string());
        [self.kubectl.clone(), config]
            .into_iter()
            .chain(rest)
            .collect()
    }
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> anyhow::Error {
    anyhow::anyhow!("a thread of the lab panicked")
}
