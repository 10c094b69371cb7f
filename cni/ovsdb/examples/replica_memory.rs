//! How much memory a replica of 100,000 logical switch ports takes, and how long the first fetch.
//!
//! Starts an ovsdb-server with OVN's northbound schema in a temporary directory, fills it, and
//! fetches it in this process. Run by hand:
//! `cargo run --release -p ovsdb --all-features --example replica_memory [rows]`

use ovsdb::{Client, Config, Datum, MonitorSpec, Remote, Transaction, Values};
use std::error::Error;
use std::process::Command;
use std::time::Duration;
use tokio::time::Instant;

ovsdb::table! {
    /// A logical switch port with the columns that a controller looks at.
    struct Port in "Logical_Switch_Port" {
        name: String,
        r#type: String,
        addresses: Vec<String>,
        port_security: Vec<String>,
        options: std::collections::BTreeMap<String, String>,
        external_ids: std::collections::BTreeMap<String, String>,
        up: Option<bool>,
        enabled: Option<bool>,
    }
}

/// A value of `/proc/self/status`, in MB.
fn memory(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    kib.and_then(|kib| kib.parse::<f64>().ok())
        .unwrap_or_default()
        / 1024.0
}

/// The CPU time that this process has used, in seconds (`/proc/self/stat`, fields 14 and 15).
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    fields
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

fn port(n: usize) -> Values {
    let (a, b, c) = (n >> 16, (n >> 8) & 255, n & 255);
    let address =
        format!("0a:58:0a:{a:02x}:{b:02x}:{c:02x} 10.{a}.{b}.{c} fd00:10:{a:x}::{b:x}{c:02x}");
    let node = n % 1000;
    let external_ids = [
        ("outboard", format!("pod/team-{}/web-{n}", n % 50)),
        ("outboard-id", format!("team-{}/web-{n}/default", n % 50)),
        (&*format!("node.worker-{node}"), String::new()),
        ("pod", format!("team-{}/web-{n}", n % 50)),
        ("uid", ovsdb::Uuid::from_u128(n as u128 * 7919).to_string()),
        ("ifname", "eth0".into()),
        ("role", "pod".into()),
        ("subnet", "default".into()),
        ("mac", format!("0a:58:0a:{a:02x}:{b:02x}:{c:02x}")),
        (
            "ips",
            format!("10.{a}.{b}.{c}/8 fd00:10:{a:x}::{b:x}{c:02x}/64"),
        ),
        ("gateways", "10.0.0.1 fd00:10::1".into()),
        ("routes", "10.96.0.0/16=10.0.0.1".into()),
        ("default-route", "true".into()),
    ]
    .map(|(key, value)| (key.to_owned(), value));
    let options = [
        ("requested-chassis", format!("worker-{node}")),
        (
            "iface-id-ver",
            ovsdb::Uuid::from_u128(n as u128 * 7919).to_string(),
        ),
    ];
    Values::new()
        .set("name", format!("team-{}/web-{n}/default", n % 50))
        .set("addresses", &*address)
        .set("port_security", &*address)
        .set("options", Datum::map(options))
        .set("external_ids", Datum::map(external_ids))
        .set("up", true)
}

async fn fill(client: &Client, rows: usize) -> Result<(), Box<dyn Error>> {
    for batch in 0..rows.div_ceil(5000) {
        let mut transaction = Transaction::new();
        let range = batch * 5000..rows.min((batch + 1) * 5000);
        let ports: Vec<_> = range
            .map(|n| transaction.insert("Logical_Switch_Port", port(n)))
            .collect();
        let switch = Values::new()
            .set("name", format!("s{batch}"))
            .set("ports", ports);
        transaction.insert("Logical_Switch", switch);
        client
            .transact(transaction, Instant::now() + Duration::from_secs(120))
            .await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let rows = std::env::args()
        .nth(1)
        .map_or(Ok(100_000), |rows| rows.parse())?;
    let config = |socket| Config::new("OVN_Northbound", vec![Remote::Unix(socket)]);
    if let Some(socket) = std::env::var_os("FILL") {
        return fill(&Client::start(config(socket.into())), rows).await;
    }
    let directory = tempfile::tempdir()?;
    let (db, socket) = (directory.path().join("db"), directory.path().join("sock"));
    let schema = "/usr/share/ovn/ovn-nb.ovsschema";
    if !Command::new("ovsdb-tool")
        .arg("create")
        .arg(&db)
        .arg(schema)
        .status()?
        .success()
    {
        return Err("ovsdb-tool failed".into());
    }
    let mut server = Command::new("ovsdb-server")
        .arg(format!("--remote=punix:{}", socket.display()))
        .arg(format!(
            "--unixctl={}",
            directory.path().join("ctl").display()
        ))
        .arg(&db)
        .spawn()?;
    // Filled by a process of its own, so that this one's memory is the replica's alone.
    let myself = std::env::current_exe()?;
    let filled = Command::new(myself)
        .arg(rows.to_string())
        .env("FILL", &socket)
        .status();
    let measured = measure(Client::start(config(socket))).await;
    server.kill()?;
    server.wait()?;
    filled?;
    measured
}

async fn measure(client: Client) -> Result<(), Box<dyn Error>> {
    client.schema().await;
    let before = memory("VmRSS");
    let start = Instant::now();
    let replica = client.monitor(MonitorSpec::new().table::<Port>());
    replica
        .wait_synced(Instant::now() + Duration::from_secs(300))
        .await?;
    let (fetched, used) = (start.elapsed(), cpu());
    let (rss, peak) = (memory("VmRSS"), memory("VmHWM"));
    println!("memory {before:.0} MB before, {rss:.0} MB after, peak {peak:.0} MB");
    let start = Instant::now();
    let found = replica.read(|snapshot| snapshot.rows::<Port>().filter(Result::is_ok).count());
    let decoded = start.elapsed();
    println!("{found} rows fetched in {fetched:?} (CPU time of this process {used:.2} s)");
    println!("all decoded to typed rows in {decoded:?}");
    Ok(())
}
