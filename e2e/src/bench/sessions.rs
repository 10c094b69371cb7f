//! What a thousand nodes cost the southbound database: each follows the rows with its own marker, as cni-node does.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use api::names::marker;
use ovsdb::{Client, Condition, MonitorSpec, Replica, Transaction, Values};
use tokio::time::Instant;

use super::Bench;
use super::ports::{self, LIMIT};
use super::procfs;
use super::relay::Server;
use super::report::{Report, Row};
use super::samples::Samples;
use crate::shell;

/// Rows of each node.
const ROWS: u16 = 10;
const CHANGES: u16 = 500;
const RELAYS: [usize; 2] = [1, 4];

ovsdb::table! {
    /// A logical port, with what cni-node reads of it.
    struct PortBinding in "Port_Binding" {
        logical_port: String,
        external_ids: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    }
}

/// Nodes' sessions, and servers whose processor time counts.
struct Scene<'a> {
    bench: &'a Bench,
    writer: Client,
    sessions: Vec<Replica>,
    servers: Vec<i32>,
}

/// Per change: processor time of each server, in µs, and the time until the node has it.
struct Cost {
    servers: Vec<f64>,
    latency: Samples,
}

/// Alone with one session, alone with all of them, behind relays.
pub(super) fn measure(bench: &Bench) -> Result<Report> {
    let pid = std::process::id().to_string();
    // As many as the machine allows; an empty hard limit keeps the one that is.
    let limit = shell::run(&["sh", "-c", "ulimit -Hn"])?;
    shell::run(&["prlimit", "--pid", &pid, &format!("--nofile={limit}:")])?;
    let dir = tempfile::tempdir()?;
    let _runtime = bench.runtime.enter();
    let database = Server::database(dir.path())?;
    let count = bench.options.sessions;
    bench.runtime.block_on(populate(&database, count))?;
    let mut report = Report::new(format!(
        "{count} conditional sessions at the southbound database ({} rows): cost of a change of one row, {CHANGES} changes",
        u32::from(count) * u32::from(ROWS)
    ));
    let one = bench.runtime.block_on(cost(bench, &database, &[], 1))?;
    let base = one.servers[0];
    let row = |what: String, value| Row::new(what, value, "µs");
    report.push(row("ovsdb-server CPU, 1 session".into(), base));
    let all = bench.runtime.block_on(cost(bench, &database, &[], count))?;
    let alone = all.servers[0];
    report
        .push(row(format!("ovsdb-server CPU, {count} sessions"), alone).beside("1 session", base));
    report.push(latency(
        &format!("change → node, {count} sessions"),
        &all,
        &one,
    ));
    for number in RELAYS {
        Bench::say(&format!("behind {number} relays"));
        let relays =
            (0..number).map(|i| Server::relay(dir.path(), &format!("relay{i}"), &database));
        let relays = relays.collect::<Result<Vec<_>>>()?;
        let cost = bench
            .runtime
            .block_on(cost(bench, &database, &relays, count))?;
        let behind = if number == 1 {
            "1 relay".to_owned()
        } else {
            format!("{number} relays")
        };
        report.push(
            row(
                format!("ovsdb-server CPU, {count} sessions behind {behind}"),
                cost.servers[0],
            )
            .beside("alone", alone),
        );
        let most = cost.servers[1..].iter().copied().fold(0.0, f64::max);
        report.push(row(format!("the busiest of {behind}, CPU"), most).beside("alone", alone));
        report.push(latency(
            &format!("change → node behind {behind}"),
            &cost,
            &all,
        ));
    }
    report.note("a relay: ovsdb-server --remote=… relay:OVN_Southbound:<the servers of SB>; it answers monitors itself and passes writes on");
    Ok(report)
}

fn latency(what: &str, cost: &Cost, other: &Cost) -> Row {
    let name = if cost.servers.len() > 1 {
        "alone"
    } else {
        "1 session"
    };
    Row::new(format!("{what}, p50"), cost.latency.p50() * 1e3, "µs")
        .beside(name, other.latency.p50() * 1e3)
        .of(&cost.latency)
}

fn node(index: u16) -> String {
    format!("host-{index:04}.example")
}

fn port(index: u16) -> String {
    format!("bench/p{index}/default")
}

/// Ten ports of each node.
async fn populate(server: &Server, nodes: u16) -> Result<()> {
    let client = ports::client("OVN_Southbound", &server.remote())?;
    let mut transaction = Transaction::new();
    let datapath = Values::new().set("tunnel_key", 1);
    let datapath = transaction.insert("Datapath_Binding", datapath);
    for index in 0..nodes {
        for row in 0..ROWS {
            let number = i64::from(index) * i64::from(ROWS) + i64::from(row) + 1;
            let name = if row == 0 {
                port(index)
            } else {
                format!("other/p{number}/default")
            };
            let ids = BTreeMap::from([
                (marker(&node(index)), String::new()),
                ("pod".to_owned(), format!("bench/p{number}")),
                (
                    "uid".to_owned(),
                    format!("00000000-0000-4000-8000-{number:012}"),
                ),
                (
                    "ips".to_owned(),
                    "10.244.0.5/16 fd00:10:244::5/64".to_owned(),
                ),
            ]);
            let row = Values::new()
                .set("datapath", &datapath)
                .set("tunnel_key", number)
                .set("logical_port", name.as_str())
                .set("external_ids", &ids);
            transaction.insert("Port_Binding", row);
        }
    }
    client.transact(transaction, Instant::now() + LIMIT).await?;
    Ok(())
}

/// Sessions at the relays, or without any at the database itself; then changes, one after the other.
async fn cost(bench: &Bench, database: &Server, relays: &[Server], count: u16) -> Result<Cost> {
    let at = |index: usize| {
        if relays.is_empty() {
            database
        } else {
            &relays[index % relays.len()]
        }
    };
    let mut scene = Scene {
        bench,
        writer: ports::client("OVN_Southbound", &database.remote())?,
        sessions: Vec::new(),
        servers: std::iter::once(database)
            .chain(relays)
            .map(Server::pid)
            .collect::<Result<_>>()?,
    };
    for index in 0..count {
        let client = ports::client("OVN_Southbound", &at(usize::from(index)).remote())?;
        let mine = BTreeMap::from([(marker(&node(index)), String::new())]);
        let spec = MonitorSpec::new()
            .table::<PortBinding>()
            .where_([Condition::includes("external_ids", mine)]);
        scene.sessions.push(client.monitor(spec));
    }
    for session in &scene.sessions {
        session.wait_synced(Instant::now() + 4 * LIMIT).await?;
        let rows = session.read(|rows| rows.len("Port_Binding"));
        anyhow::ensure!(
            rows == usize::from(ROWS),
            "a session sees {rows} rows, not {ROWS}"
        );
    }
    // The first changes pay for what is made once.
    scene.changes(20).await?;
    scene.changes(CHANGES).await
}

impl Scene<'_> {
    async fn changes(&self, changes: u16) -> Result<Cost> {
        let before = self.cpu()?;
        let mut latency = Samples::default();
        for change in 0..changes {
            latency.push(self.change(change).await?);
        }
        let after = self.cpu()?;
        let each = |(a, b): (&Duration, &Duration)| {
            a.saturating_sub(*b).as_secs_f64() * 1e6 / f64::from(changes)
        };
        Ok(Cost {
            servers: after.iter().zip(&before).map(each).collect(),
            latency,
        })
    }

    fn cpu(&self) -> Result<Vec<Duration>> {
        self.servers.iter().map(|pid| procfs::cpu(*pid)).collect()
    }

    async fn change(&self, number: u16) -> Result<Duration> {
        let count = u16::try_from(self.sessions.len())?;
        let index = u16::try_from(u32::from(number) * 37 % u32::from(count))?;
        // Different from what another series wrote.
        let value = format!("{number}-{}", self.bench.serial());
        let options = BTreeMap::from([("bench", value.as_str())]);
        let mut transaction = Transaction::new();
        let row = [Condition::eq("logical_port", port(index).as_str())];
        transaction.update("Port_Binding", row, Values::new().set("options", options));
        let begun = Instant::now();
        self.writer.transact(transaction, begun + LIMIT).await?;
        let session = self
            .sessions
            .get(usize::from(index))
            .context("a session of that number")?;
        ports::when(session, "a change to reach its node", |rows| {
            let mut all = rows.rows::<PortBinding>().filter_map(Result::ok);
            all.any(|row| row.options.get("bench") == Some(&value))
                .then_some(())
        })
        .await?;
        Ok(begun.elapsed())
    }
}
