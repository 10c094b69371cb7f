//! Service addresses that the node serves itself: those with an endpoint outside the pods' subnets.
//!
//! A process of the node that connects to such a VIP is redirected in the host's own stack by table `outboard-vip`; all other VIPs
//! go through `ob0` to OVN. Which VIPs is [`service`]'s answer, the rules are [`ruleset`]'s. Only Load_Balancers of the join
//! switch count: those are the default VPC's. UDP flows to an endpoint that went away are forgotten ([`flows`]).

mod flows;
mod ruleset;
mod service;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use api::NodeFacts;
use ipnet::IpNet;
use ovsdb::{Client, MonitorSpec, Replica, Uuid};
use tokio::sync::watch;
use tokio::time::Instant;

use self::flows::Flows;
use self::service::{LoadBalancer, Protocol, Service};
use crate::chassis::{rows, trouble};
use crate::gateway::nft::Table;
use crate::gateway::node_port::NodePort;
use crate::netlink::Events;
use crate::rounds::{Pace, Why};

/// Name of the nftables table (family inet).
const TABLE: &str = "outboard-vip";

/// A rollout changes many rows in a row: they make one round.
const SETTLE: Duration = Duration::from_millis(50);

ovsdb::table! {
    /// A load balancer in the southbound database. Newer OVN splits the group in two.
    struct Row in "Load_Balancer" {
        vips: BTreeMap<String, String>,
        protocol: Option<String>,
        options: BTreeMap<String, String>,
        datapaths: Vec<Uuid>,
        datapath_group: Option<Uuid>,
        ls_datapath_group: Option<Uuid>,
    }
}

ovsdb::table! {
    /// A set of logical datapaths.
    struct Group in "Logical_DP_Group" {
        datapaths: BTreeSet<Uuid>,
    }
}

/// Keeps the rules until the pace says stop. `port` is the gateway's output; before it is known there are no rules.
pub(crate) async fn run(
    southbound: Client,
    port: watch::Receiver<Option<NodePort>>,
    mut pace: Pace,
) {
    let remote = southbound.monitor(MonitorSpec::new().table::<Row>().table::<Group>());
    pace.wake_on(remote.changed());
    pace.wake_on(southbound.status());
    pace.wake_on(port.clone());
    pace.wake_on_kernel(Events::tables(), Table::concerns(TABLE));
    let mut vips = Vips::new();
    loop {
        let started = Instant::now();
        let known = port.borrow().clone();
        let problems = match (known, trouble(&southbound, &remote)) {
            (Some(port), None) => match converge(&mut vips, &port, &remote).await {
                Ok(forgotten) => {
                    pace.forgot_flows(forgotten);
                    Vec::new()
                }
                Err(sentence) => vec![sentence],
            },
            // The rules in place outlive the database and a restart.
            (_, Some(trouble)) => vec![format!(
                "services with endpoints on nodes are not followed: the southbound database cannot be read ({trouble})"
            )],
            (None, None) => vec![
                "services with endpoints on nodes are not served yet: the node's own port is not known (see the gateway's sentence)".to_owned(),
            ],
        };
        pace.finish(started, &problems);
        match pace.next().await {
            None => return,
            Some(Why::Event) => tokio::time::sleep(SETTLE).await,
            Some(Why::Kernel | Why::Timer) => vips.table.verify().await,
        }
    }
}

/// What this node serves itself, as it is in the kernel.
struct Vips {
    table: Table,
    flows: Flows,
}

impl Vips {
    fn new() -> Self {
        Self {
            table: Table::new(TABLE),
            flows: Flows::default(),
        }
    }

    /// Makes the kernel serve `services` to a node whose ob0 has `addresses`; the number of UDP flows that were forgotten.
    ///
    /// Flows come last: a packet in between starts its flow by the new rules.
    async fn serve(
        &mut self,
        services: &Served,
        addresses: &[IpAddr],
    ) -> Result<usize, crate::gateway::nft::Error> {
        let body = ruleset::ruleset(&services.here, addresses);
        self.table.converge(&body).await?;
        Ok(self.flows.follow(&services.here, &services.elsewhere).await)
    }
}

/// The service addresses, by who serves them.
struct Served {
    /// This node.
    here: Vec<Service>,
    /// OVN: the UDP ones.
    elsewhere: BTreeSet<SocketAddr>,
}

impl Served {
    fn new<'a>(
        balancers: impl Iterator<Item = LoadBalancer<'a>> + Clone,
        inside: &[IpNet],
    ) -> Self {
        let here = service::served(balancers.clone(), inside);
        let mut elsewhere = service::addresses(balancers, Protocol::Udp);
        for service in here.iter().filter(|one| one.protocol == Protocol::Udp) {
            elsewhere.remove(&service.vip);
        }
        Self { here, elsewhere }
    }
}

async fn converge(vips: &mut Vips, port: &NodePort, remote: &Replica) -> Result<usize, String> {
    let services = services(port, remote)?;
    let addresses: Vec<IpAddr> = port.addresses.iter().map(IpNet::addr).collect();
    vips.serve(&services, &addresses)
        .await
        .map_err(|error| error.to_string())
}

/// Where endpoints are OVN's: the subnets of pods and of nodes.
fn inside(port: &NodePort) -> Vec<IpNet> {
    let NodeFacts {
        pod_cidrs,
        join_cidrs,
        ..
    } = &port.facts;
    pod_cidrs.iter().chain(join_cidrs).copied().collect()
}

fn services(port: &NodePort, remote: &Replica) -> Result<Served, String> {
    let Some(join) = port.datapath else {
        return Ok(Served::new(std::iter::empty(), &[]));
    };
    let groups: HashSet<Uuid> = rows::<Group>(remote)?
        .into_iter()
        .filter(|group| group.datapaths.contains(&join))
        .map(|group| group.uuid)
        .collect();
    let inside = inside(port);
    let on_join = |group: Option<Uuid>| group.is_some_and(|group| groups.contains(&group));
    let balancers: Vec<Row> = rows::<Row>(remote)?
        .into_iter()
        .filter(|row| {
            row.datapaths.contains(&join)
                || on_join(row.datapath_group)
                || on_join(row.ls_datapath_group)
        })
        .collect();
    let balancers = balancers.iter().map(|row| LoadBalancer {
        protocol: row.protocol.as_deref(),
        vips: &row.vips,
        options: &row.options,
    });
    Ok(Served::new(balancers, &inside))
}
