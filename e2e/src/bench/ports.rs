//! Logical switch ports as cni-controller writes them, written here: OVN's databases for sections without a cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use api::names::{self, DEFAULT_SUBNET, PRIMARY_IFNAME};
use api::{Mac, PodPort, PortFacts, Role};
use ipnet::IpNet;
use ovsdb::{
    Client, Condition, Config, MonitorSpec, Mutation, Remote, Replica, Snapshot, Table,
    Transaction, Uuid, Values,
};
use tokio::time::Instant;

use crate::central::Central;

/// No step of a measurement takes this long unless something is broken.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

ovsdb::table! {
    /// A logical port as its chassis sees it.
    struct PortBinding in "Port_Binding" {
        logical_port: String,
    }
}

ovsdb::table! {
    /// How far all chassis have come.
    struct NbGlobal in "NB_Global" {
        nb_cfg: i64,
        hv_cfg: i64,
    }
}

/// One pod's port.
#[derive(Debug, Clone)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) facts: PortFacts,
    pub(super) pod: PodPort,
    chassis: String,
}

impl Port {
    /// The port of pod `bench/p<number>` on a chassis, in subnet `default` of [`crate::LogicalNetwork`].
    pub(super) fn new(number: u16, chassis: &str) -> Self {
        let pod = PodPort {
            namespace: "bench".into(),
            name: format!("p{number}"),
            uid: format!("uid-p{number}"),
            ifname: PRIMARY_IFNAME.into(),
            target: None,
        };
        let [high, low] = number.to_be_bytes();
        let v4 = IpAddr::from(Ipv4Addr::new(10, 244, high, low));
        let v6 = |host| IpAddr::from(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, host));
        let net = |ip, prefix| IpNet::new(ip, prefix).expect("a prefix that the family has");
        let facts = PortFacts {
            chassis: [chassis.to_owned()].into(),
            host: None,
            role: Role::Pod(pod.clone()),
            subnet: DEFAULT_SUBNET.into(),
            mac: Mac::of(v4),
            ips: vec![net(v4, 16), net(v6(number), 64)],
            gateways: vec![Ipv4Addr::new(10, 244, 0, 1).into(), v6(1)],
            routes: Vec::new(),
            mtu: None,
            default_route: true,
        };
        let name = names::pod_port(&pod.namespace, &pod.name, DEFAULT_SUBNET, None);
        Self {
            name,
            facts,
            pod,
            chassis: chassis.to_owned(),
        }
    }

    /// Adds the port to a transaction on NB.
    pub(super) fn insert(&self, transaction: &mut Transaction) -> ovsdb::NamedUuid {
        let ips = self
            .facts
            .ips
            .iter()
            .map(|ip| ip.addr().to_string())
            .collect::<Vec<_>>();
        let addresses = format!("{} {}", self.facts.mac, ips.join(" "));
        let options = BTreeMap::from([
            ("requested-chassis", self.chassis.as_str()),
            ("iface-id-ver", self.pod.uid.as_str()),
        ]);
        let row = Values::new()
            .set("name", self.name.as_str())
            .set("addresses", addresses.as_str())
            .set("port_security", addresses.as_str())
            .set("options", options)
            .set("external_ids", self.facts.encode());
        let port = transaction.insert("Logical_Switch_Port", row);
        let switch = [Condition::eq("name", DEFAULT_SUBNET)];
        transaction.mutate("Logical_Switch", switch, [Mutation::insert("ports", &port)]);
        port
    }
}

/// Connections to NB and SB, all rights.
pub(super) struct Databases {
    pub(super) nb: Client,
    global: Replica,
    bindings: Replica,
}

impl Databases {
    /// Connects; follows the ports of one chassis. In a tokio runtime.
    pub(super) fn connect(central: &Central, chassis: &str) -> Result<Self> {
        let nb = client("OVN_Northbound", &central.nb_unix())?;
        let sb = client("OVN_Southbound", &central.sb_unix())?;
        let marked = BTreeMap::from([(names::marker(chassis), String::new())]);
        let bindings = MonitorSpec::new()
            .table::<PortBinding>()
            .where_([Condition::includes("external_ids", marked)]);
        Ok(Self {
            global: nb.monitor(MonitorSpec::new().table::<NbGlobal>()),
            bindings: sb.monitor(bindings),
            nb,
        })
    }

    /// Inserts ports and waits until every chassis has taken note of them; the rows in NB.
    pub(super) async fn add(&self, ports: &[Port]) -> Result<Vec<Uuid>> {
        let mut transaction = Transaction::new();
        let named: Vec<_> = ports
            .iter()
            .map(|port| port.insert(&mut transaction))
            .collect();
        let outcome = self
            .nb
            .transact(transaction, Instant::now() + LIMIT)
            .await?;
        let rows: Option<Vec<Uuid>> = named.iter().map(|name| outcome.inserted(name)).collect();
        for port in ports {
            when(
                &self.bindings,
                &format!("port {} in SB", port.name),
                |rows| {
                    let mut all = rows.rows::<PortBinding>().filter_map(Result::ok);
                    all.any(|row| row.logical_port == port.name).then_some(())
                },
            )
            .await?;
        }
        self.settle().await?;
        rows.context("an inserted row has a UUID")
    }

    /// Removes ports.
    pub(super) async fn remove(&self, rows: &[Uuid]) -> Result<()> {
        let mut transaction = Transaction::new();
        let switch = [Condition::eq("name", DEFAULT_SUBNET)];
        let gone = Mutation::delete("ports", rows.to_vec());
        transaction.mutate("Logical_Switch", switch, [gone]);
        self.nb
            .transact(transaction, Instant::now() + LIMIT)
            .await?;
        self.settle().await
    }

    /// Waits until northd and all chassis have nothing left to do (what `ovn-nbctl --wait=hv sync` does).
    pub(super) async fn settle(&self) -> Result<()> {
        let mut transaction = Transaction::new();
        transaction.mutate("NB_Global", [], [Mutation::add("nb_cfg", 1)]);
        transaction.select("NB_Global", [], ["nb_cfg"]);
        let outcome = self
            .nb
            .transact(transaction, Instant::now() + LIMIT)
            .await?;
        let row = outcome.rows(1).first().context("NB_Global has a row")?;
        let wanted = row
            .get("nb_cfg")
            .and_then(|d| d.one())
            .and_then(ovsdb::Atom::as_integer);
        let wanted = wanted.context("NB_Global has a number nb_cfg")?;
        when(&self.global, "all chassis to settle", |rows| {
            let mut all = rows.rows::<NbGlobal>().filter_map(Result::ok);
            all.any(|row| row.hv_cfg >= wanted).then_some(())
        })
        .await
    }
}

/// A client of one server by its remote.
pub(super) fn client(database: &str, remote: &str) -> Result<Client> {
    Ok(Client::start(Config {
        // No echo falls into a measurement.
        probe_interval: Duration::from_secs(600),
        ..Config::new(database, Remote::parse_list(remote)?)
    }))
}

/// Waits until a replica shows something.
pub(super) async fn when<T>(
    replica: &Replica,
    what: &str,
    probe: impl Fn(Snapshot<'_>) -> Option<T>,
) -> Result<T> {
    when_in(LIMIT, replica, what, probe).await
}

/// As [`when`], with a limit of its own.
pub(super) async fn when_in<T>(
    limit: Duration,
    replica: &Replica,
    what: &str,
    probe: impl Fn(Snapshot<'_>) -> Option<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    let mut changed = replica.changed();
    loop {
        if let Some(found) = replica.read(&probe) {
            return Ok(found);
        }
        match tokio::time::timeout_at(deadline, changed.changed()).await {
            Ok(Ok(())) => {}
            _ => bail!("waited {limit:?} in vain for {what}"),
        }
    }
}

/// A replica of one table's rows that meet a condition, filled.
pub(super) async fn filled<T: Table>(client: &Client, condition: Condition) -> Result<Replica> {
    let replica = client.monitor(MonitorSpec::new().table::<T>().where_([condition]));
    replica.wait_synced(Instant::now() + LIMIT).await?;
    Ok(replica)
}
