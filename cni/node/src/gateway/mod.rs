//! The node's gateway: `ob0`, an internal port of br-int on the join subnet, and what hangs on it.
//!
//! Its addresses and the cluster's CIDRs come with the node's own row in the southbound database ([`node_port`]); [`port`] puts it
//! into Open vSwitch, [`kernel`] gives it addresses and routes, [`firewall`] masquerades what pods send outside (design §4).
//! When the row goes away, everything stays: an emptied northbound database must not cut a node off. Stopping leaves it, too.

pub(crate) mod concern;
mod firewall;
pub(crate) mod kernel;
pub(crate) mod nft;
pub(crate) mod node_port;
mod port;

#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;

use api::names::GATEWAY_IFNAME;
use ovsdb::{Client, Condition, MonitorSpec, Replica};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info};

use self::concern::Concern;
use self::nft::Table;
use self::node_port::{NodePort, PortBinding};
use crate::chassis::{Databases, deadline, rows, trouble};
use crate::netlink::{Events, Netlink};
use crate::rounds::{Pace, Why};

/// Name of the nftables table (family inet).
const TABLE: &str = "outboard";

/// The two inputs of the gateway that are no database, and its output.
pub(crate) struct Links {
    /// Largest MTU over this node's underlay.
    pub(crate) mtu: watch::Receiver<Option<u32>>,
    /// Gets the node's port whenever it changes; the VIPs follow it.
    pub(crate) port: watch::Sender<Option<NodePort>>,
}

/// Keeps the gateway of `chassis` until the pace says stop.
pub(crate) async fn run(chassis: String, databases: Databases, links: Links, mut pace: Pace) {
    let Databases {
        vswitch,
        southbound,
    } = databases;
    let local = vswitch.monitor(
        MonitorSpec::new()
            .table::<port::Bridge>()
            .where_([Condition::eq("name", port::BRIDGE)])
            .table::<port::Port>()
            .where_([Condition::eq("name", GATEWAY_IFNAME)])
            .table::<port::Interface>()
            .where_([Condition::eq("name", GATEWAY_IFNAME)]),
    );
    let remote = southbound.monitor(
        MonitorSpec::new()
            .table::<PortBinding>()
            .where_([node_port::condition(&chassis)]),
    );
    pace.wake_on(local.changed());
    pace.wake_on(remote.changed());
    pace.wake_on(vswitch.status());
    pace.wake_on(links.mtu.clone());
    // Subscribed before the first look: nothing is missed in between.
    let events = Events::routing();
    let mut concern = Concern::new(links.port.subscribe());
    pace.wake_on_kernel(events, move |event| concern.of(event));
    pace.wake_on_kernel(Events::tables(), Table::concerns(TABLE));
    let mut gateway = Gateway {
        vswitch,
        local,
        table: Table::new(TABLE),
        links,
    };
    loop {
        let started = Instant::now();
        let problems = match gateway.find(&chassis, &southbound, &remote) {
            Ok(port) => gateway.converge(&port).await,
            Err(sentence) => vec![sentence],
        };
        pace.finish(started, &problems);
        match pace.next().await {
            None => return,
            Some(Why::Event) => {}
            Some(Why::Kernel | Why::Timer) => gateway.table.verify().await,
        }
    }
}

struct Gateway {
    vswitch: Client,
    local: Replica,
    table: Table,
    links: Links,
}

impl Gateway {
    /// The node's port: as the database has it, or as it was last known while the database is away.
    fn find(
        &self,
        chassis: &str,
        southbound: &Client,
        remote: &Replica,
    ) -> Result<NodePort, String> {
        let known = self.links.port.borrow().clone();
        let found = if let Some(trouble) = trouble(southbound, remote) {
            Err(format!(
                "the southbound database cannot be read ({trouble}): see its log"
            ))
        } else {
            rows::<PortBinding>(remote).and_then(|rows| node_port::choose(&rows, chassis))
        };
        match (found, known) {
            (Ok(port), _) => {
                self.links.port.send_if_modified(|held| {
                    let changed = held.as_ref() != Some(&port);
                    *held = Some(port.clone());
                    changed
                });
                Ok(port)
            }
            (Err(sentence), Some(port)) => {
                debug!("keeping the gateway as it is: {sentence}");
                Ok(port)
            }
            (Err(sentence), None) => Err(sentence),
        }
    }

    /// Each part goes as far as it can: a missing nft does not keep ob0 from coming up.
    async fn converge(&mut self, port: &NodePort) -> Vec<String> {
        let mut problems = Vec::new();
        if let Err(sentence) = self.plug(port).await {
            problems.push(sentence);
        }
        if let Err(sentence) = configure(port) {
            problems.push(sentence);
        }
        if let Err(error) = self.table.converge(&firewall::ruleset(&port.facts)).await {
            problems.push(error.to_string());
        }
        problems
    }

    /// The Open vSwitch side.
    async fn plug(&self, port: &NodePort) -> Result<(), String> {
        if let Some(trouble) = trouble(&self.vswitch, &self.local) {
            return Err(format!(
                "the local Open vSwitch database cannot be used ({trouble}): is ovsdb-server running?"
            ));
        }
        let underlay = *self.links.mtu.borrow();
        let mtu = match (underlay, port.mtu) {
            (Some(underlay), Some(most)) => underlay.min(most),
            (Some(underlay), None) => underlay,
            (None, _) => {
                return Err(format!(
                    "the MTU of {GATEWAY_IFNAME} is not known: no link of this node has the encapsulation address (--encap-ip)"
                ));
            }
        };
        let desired = port::desired(port, mtu);
        let observed = port::Observed {
            bridge: rows::<port::Bridge>(&self.local)?.pop(),
            port: rows::<port::Port>(&self.local)?.pop(),
            interface: rows::<port::Interface>(&self.local)?.pop(),
        };
        let step = port::plan(&desired, &observed)?;
        if let Some(transaction) = port::transaction(&desired, &step) {
            self.vswitch.transact(transaction, deadline()).await.map_err(|error| {
                format!("cannot write port {GATEWAY_IFNAME} to Open vSwitch: {error}; see ovsdb-server's log")
            })?;
            info!(?step, "port {GATEWAY_IFNAME} written to Open vSwitch");
        }
        match observed.interface.and_then(|interface| interface.error) {
            Some(error) => Err(format!(
                "ovs-vswitchd cannot make {GATEWAY_IFNAME}: {error}; see ovs-vswitchd's log"
            )),
            None => Ok(()),
        }
    }
}

/// The kernel's side.
fn configure(port: &NodePort) -> Result<(), String> {
    let unreadable = |error: std::io::Error| {
        format!("cannot read {GATEWAY_IFNAME}'s state from the kernel: {error}")
    };
    let desired = kernel::desired(port);
    let mut netlink = Netlink::open().map_err(unreadable)?;
    let observed =
        kernel::observe(&mut netlink, &desired, Path::new("/proc/sys")).map_err(unreadable)?;
    let Some(observed) = observed else {
        return Err(format!(
            "link {GATEWAY_IFNAME} does not exist yet: is ovs-vswitchd running on this node?"
        ));
    };
    let plan = kernel::plan(&desired, &observed);
    if plan == kernel::Plan::default() {
        return Ok(());
    }
    kernel::apply(&mut netlink, &plan)?;
    info!(
        changes = plan.changes.len(),
        settings = plan.settings.len(),
        "{GATEWAY_IFNAME} set up"
    );
    Ok(())
}
