//! Service addresses that the node serves itself: those with an endpoint outside the pods' subnets.
//!
//! A process of the node that connects to such a VIP is redirected in the host's own stack by table `outboard-vip`; all other VIPs
//! go through `ob0` to OVN. Which VIPs is [`service`]'s answer, the rules are [`ruleset`]'s. Only Load_Balancers of the join
//! switch count: those are the default VPC's. Established UDP flows keep an endpoint that went away until conntrack forgets them.

mod ruleset;
mod service;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use ovsdb::{Client, MonitorSpec, Replica, Uuid};
use tokio::sync::watch;
use tokio::time::Instant;

use self::service::{LoadBalancer, Service};
use crate::chassis::{rows, trouble};
use crate::gateway::nft::Table;
use crate::gateway::node_port::NodePort;
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
    let mut table = Table::new(TABLE);
    loop {
        let started = Instant::now();
        let known = port.borrow().clone();
        let problems = match (known, trouble(&southbound, &remote)) {
            (Some(port), None) => converge(&mut table, &port, &remote).await,
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
            Some(Why::Timer) => table.verify().await,
        }
    }
}

async fn converge(table: &mut Table, port: &NodePort, remote: &Replica) -> Vec<String> {
    let services = match services(port, remote) {
        Ok(services) => services,
        Err(sentence) => return vec![sentence],
    };
    let addresses: Vec<IpAddr> = port.addresses.iter().map(IpNet::addr).collect();
    match table
        .converge(&ruleset::ruleset(&services, &addresses))
        .await
    {
        Ok(_) => Vec::new(),
        Err(error) => vec![error.to_string()],
    }
}

fn services(port: &NodePort, remote: &Replica) -> Result<Vec<Service>, String> {
    let Some(join) = port.datapath else {
        return Ok(Vec::new());
    };
    let groups: HashSet<Uuid> = rows::<Group>(remote)?
        .into_iter()
        .filter(|group| group.datapaths.contains(&join))
        .map(|group| group.uuid)
        .collect();
    let inside: Vec<IpNet> = port
        .facts
        .pod_cidrs
        .iter()
        .chain(&port.facts.join_cidrs)
        .copied()
        .collect();
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
    Ok(service::served(balancers, &inside))
}
