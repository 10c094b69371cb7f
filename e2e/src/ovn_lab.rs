//! OVN without Kubernetes: central and chassis, for tests of one daemon against the real thing. Up in seconds.

use anyhow::Result;

use crate::central::{Central, CentralConfig};
use crate::node::Node;
use crate::site::{self, Site, SiteConfig};
use crate::topology::Topology;
use crate::{switch, uplink};

/// What is wanted.
#[derive(Debug, Clone)]
pub struct OvnLabConfig {
    /// Of [`Topology::Plain`], how many chassis; the first one is also the master.
    pub nodes: u8,
    /// Which nodes: hosts behind a DPU are no chassis.
    pub topology: Topology,
    /// Names of the nodes whose Open vSwitch has DPDK (see [`SiteConfig::dpdk`]).
    pub dpdk: Vec<String>,
    /// NB as one server or three.
    pub central: CentralConfig,
    /// Connect the chassis to SB (with certificates and the role). Otherwise ovn-controller idles, as cni-node finds it.
    pub connect: bool,
}

impl Default for OvnLabConfig {
    fn default() -> Self {
        Self {
            nodes: 2,
            topology: Topology::Plain,
            dpdk: Vec::new(),
            central: CentralConfig::default(),
            connect: true,
        }
    }
}

/// A running OVN. Dropping it takes it down.
pub struct OvnLab {
    /// The ground: nodes, addresses.
    pub site: Site,
    /// The databases.
    pub central: Central,
}

impl OvnLab {
    /// Brings up central and chassis. The nodes have their identity files in any case.
    ///
    /// # Errors
    /// A part does not come up; nothing is left then.
    pub fn up(config: &OvnLabConfig) -> Result<Self> {
        let site = Site::create(&SiteConfig {
            id: None,
            nodes: config.nodes,
            topology: config.topology,
            dpdk: config.dpdk.clone(),
        })?;
        // Central is reached over the underlay, which is OVS already: switches first.
        site::in_parallel(site.nodes().iter(), uplink::of_node)?;
        let central = Central::start(site.master(), config.central)?;
        for node in chassis(&site) {
            let identity = central.give_identity(node)?;
            if config.connect {
                switch::configure(node, &central.sb_remote(), Some(identity))?;
            }
        }
        let lab = Self { site, central };
        if config.connect {
            lab.wait_for_chassis()?;
        }
        Ok(lab)
    }

    /// A node by its name.
    ///
    /// # Panics
    /// There is none.
    pub fn node(&self, name: &str) -> &Node {
        self.site.node(name)
    }

    fn wait_for_chassis(&self) -> Result<()> {
        for node in chassis(&self.site) {
            let name = node.name();
            self.central
                .sbctl(&["wait-until", "chassis", name, &format!("name={name}")])?;
        }
        Ok(())
    }
}

fn chassis(site: &Site) -> impl Iterator<Item = &Node> {
    site.nodes().iter().filter(|node| node.role().has_switch())
}
