//! A node's machine goes off and on again: nothing runs, nothing in memory is left, the disk is what it was.
//!
//! The network namespace, the mounts of the disk and the wire to the underlay stay: they are what the lab takes for the machine.
//! Everything else that a reboot ends is ended: all processes, the containers' among them, everything under /run, what was
//! mounted for containers, all links but the uplink (a card's functions go with them, also those that pods of the host have), rules and
//! connections. Open vSwitch begins with an empty database, and the node's programs see another boot id.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};

use crate::node::Node;
use crate::site::Site;
use crate::topology::Role;
use crate::{card, kubelet, switch, uplink};

/// In a node whose processes have ended. The reboot's last words: nothing may be left mounted under /run.
const WIPE: &str = r#"
below() { awk '$5 ~ "^(/run|/var/lib/kubelet|/var/lib/containerd)/" {print $5}' /proc/self/mountinfo | sort -r; }
below | while read -r point; do umount -l "$point" 2>/dev/null || true; done
if [ -n "$(below)" ]; then echo "still mounted: $(below)" >&2; exit 1; fi
find /run -mindepth 1 -delete
mkdir -p /run/netns /run/lock /run/outboard
ip -o link | sed 's/^[0-9]*: \([^:@]*\).*/\1/' | while read -r link; do
    # Some belong to the namespace itself and cannot go, some go with others.
    case $link in lo | eth0) ;; *) ip link delete "$link" 2>/dev/null || true ;; esac
done
ip link set eth0 down
ip addr flush dev eth0
nft flush ruleset
conntrack -F >/dev/null 2>&1 || true
"#;

/// When what was up again.
#[derive(Debug, Clone, Copy)]
pub struct Reboot {
    /// Nothing runs.
    pub off: SystemTime,
    /// Open vSwitch answers; of a host: the uplink is up.
    pub network: SystemTime,
    /// kubelet has been started.
    pub kubelet: SystemTime,
}

/// Ends everything.
pub(crate) fn power_off(node: &Node) -> Result<SystemTime> {
    node.cgroup()
        .kill_all_but(node.holder())
        .with_context(|| format!("on node {}", node.name()))?;
    let off = SystemTime::now();
    node.script(WIPE)
        .with_context(|| format!("node {} cannot be wiped", node.name()))?;
    Ok(off)
}

/// Starts it again; returns when kubelet has been started.
pub(crate) fn power_on(site: &Site, node: &Node, off: SystemTime) -> Result<Reboot> {
    node.new_boot_id()?;
    card::plug(node, site.nodes())?;
    switch::forget(node)?;
    uplink::of_node(node)?;
    let network = SystemTime::now();
    kubelet::again(node)?;
    Ok(Reboot {
        off,
        network,
        kubelet: SystemTime::now(),
    })
}

impl Site {
    /// Off and on again.
    ///
    /// # Errors
    /// The node is the master, whose databases would be lost with it, or something does not end or start.
    pub fn reboot(&self, name: &str) -> Result<Reboot> {
        let off = self.power_off(name)?;
        self.power_on(name, off)
    }

    /// Off; since when.
    ///
    /// # Errors
    /// As [`Self::reboot`].
    pub fn power_off(&self, name: &str) -> Result<SystemTime> {
        ensure!(
            name != self.master().name(),
            "{name} is the master: it has the cluster's databases, and is not rebooted"
        );
        power_off(self.find(name)?)
    }

    /// On again.
    ///
    /// # Errors
    /// As [`Self::reboot`].
    pub fn power_on(&self, name: &str, off: SystemTime) -> Result<Reboot> {
        power_on(self, self.find(name)?, off)
    }

    /// A DPU's or plain node's Open vSwitch loses its database: its programs end and start with an empty one.
    ///
    /// # Errors
    /// It has none, or does not start.
    pub fn lose_switch_database(&self, name: &str) -> Result<()> {
        let node = self.find(name)?;
        ensure!(
            node.role().has_switch(),
            "{name} is a host behind a DPU: it has no Open vSwitch"
        );
        switch::lose_database(node)
    }

    /// The DPU of a host.
    ///
    /// # Errors
    /// There is no such host.
    pub fn dpu_of(&self, host: &str) -> Result<&Node> {
        match self.find(host)?.role() {
            Role::Host { dpu } => self.find(dpu),
            other => anyhow::bail!("node {host} is {}, not a host behind a DPU", other.word()),
        }
    }

    /// A node by its name.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, name: &str) -> Result<&Node> {
        let found = self.nodes().iter().find(|node| node.name() == name);
        found.with_context(|| {
            format!(
                "lab {} has no node {name}: `outboard-lab status` lists them",
                self.id()
            )
        })
    }
}

impl Reboot {
    /// From the end of everything until the network's programs answered, and until kubelet was started.
    pub fn took(&self) -> (Duration, Duration) {
        let since = |time: SystemTime| time.duration_since(self.off).unwrap_or_default();
        (since(self.network), since(self.kubelet))
    }
}
