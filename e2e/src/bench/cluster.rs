//! An API server, OVN's databases and cni-controller: a cluster whose nodes and pods are rows in etcd.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use api::names::DEFAULT_SUBNET;
use ovsdb::{Client, Condition, Replica};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Bench;
use super::etcd::Etcd;
use super::ports;
use crate::central::{Central, CentralConfig};
use crate::control_plane::ControlPlane;
use crate::node::Node;
use crate::process::Process;
use crate::site::{Site, SiteConfig};
use crate::{images, shell, switch};

/// Where the pods are.
pub(super) const NAMESPACE: &str = "bench";
const CONTROLLER: &str = "cni-controller";
const ADMIN_PORT: u16 = 9477;

ovsdb::table! {
    /// A logical switch port.
    struct LogicalSwitchPort in "Logical_Switch_Port" {
        name: String,
    }
}

ovsdb::table! {
    /// A logical switch.
    struct LogicalSwitch in "Logical_Switch" {
        name: String,
    }
}

ovsdb::table! {
    /// A logical port in SB.
    struct PortBinding in "Port_Binding" {
        logical_port: String,
    }
}

/// A running cluster. Dropping it takes it down.
pub(super) struct Cluster {
    site: Site,
    central: Central,
    plane: ControlPlane,
    /// Where its objects are written.
    pub(super) etcd: Etcd,
    nb: Client,
    sb: Client,
}

impl Cluster {
    /// Brings it up, without cni-controller.
    pub(super) fn up(bench: &Bench) -> Result<Self> {
        let site = Site::create(&SiteConfig {
            nodes: 1,
            ..SiteConfig::default()
        })?;
        let master = site.master();
        switch::start(master)?;
        let plane = ControlPlane::start(master)?;
        let central = Central::start(master, CentralConfig::default())?;
        plane.wait()?;
        let _runtime = bench.runtime.enter();
        let cluster = Self {
            etcd: Etcd::of(master)?,
            nb: ports::client("OVN_Northbound", &central.nb_unix())?,
            sb: ports::client("OVN_Southbound", &central.sb_unix())?,
            site,
            central,
            plane,
        };
        cluster.kubectl(&["create", "namespace", "outboard-system"])?;
        cluster.kubectl(&["create", "namespace", NAMESPACE])?;
        let crds = images::checkout()
            .join("manifests/crds")
            .display()
            .to_string();
        cluster.kubectl(&["apply", "--server-side", "-k", &crds])?;
        let wait = [
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "crd",
            "--all",
        ];
        cluster.kubectl(&wait)?;
        Ok(cluster)
    }

    /// The only machine.
    pub(super) fn master(&self) -> &Node {
        self.site.master()
    }

    /// The administrator's kubeconfig.
    pub(super) fn kubeconfig(&self) -> &Path {
        &self.plane.kubeconfig
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let config = format!("--kubeconfig={}", self.plane.kubeconfig.display());
        let kubectl = images::tool("kubectl")?;
        shell::run(&[&[kubectl.as_str(), &config], arguments].concat())
    }

    /// Ports of pods in NB.
    pub(super) async fn ports(&self) -> Result<Replica> {
        ports::filled::<LogicalSwitchPort>(&self.nb, of_pods()).await
    }

    /// Ports of pods in SB.
    pub(super) async fn bindings(&self) -> Result<Replica> {
        ports::filled::<PortBinding>(&self.sb, of_pods()).await
    }

    /// Starts cni-controller with these pod CIDRs, as its manifest does it; when that began.
    pub(super) fn start_controller(&self, pod_cidrs: &str) -> Result<Instant> {
        let (client, ca) = (&self.central.nb_client, &self.central.nb_ca.certificate);
        let argv = [
            "env".to_owned(),
            format!("KUBECONFIG={}", self.plane.kubeconfig.display()),
            images::program(CONTROLLER)?,
            format!("--nb={}", self.central.nb_remote()),
            format!("--nb-key={}", client.key.display()),
            format!("--nb-cert={}", client.certificate.display()),
            format!("--nb-ca={}", ca.display()),
            "--sb=unix:/run/ovn/ovnsb_db.sock".to_owned(),
            format!("--pod-cidr={pod_cidrs}"),
            "--service-cidr=10.96.0.0/16,fd00:10:96::/112".to_owned(),
            format!("--admin-address=0.0.0.0:{ADMIN_PORT}"),
        ];
        let begun = Instant::now();
        self.master().start(CONTROLLER, &argv)?;
        Ok(begun)
    }

    /// The running cni-controller.
    pub(super) fn controller(&self) -> Process {
        self.master().process(CONTROLLER)
    }

    /// Waits until the default subnet is in NB.
    pub(super) async fn network(&self) -> Result<()> {
        self.switches(1).await
    }

    /// Waits until the default subnet is no longer in NB.
    pub(super) async fn no_network(&self) -> Result<()> {
        self.switches(0).await
    }

    async fn switches(&self, wanted: usize) -> Result<()> {
        let default = Condition::eq("name", DEFAULT_SUBNET);
        let switches = ports::filled::<LogicalSwitch>(&self.nb, default).await?;
        count(&switches, "Logical_Switch", wanted, ports::LIMIT)
            .await
            .map(drop)
    }

    /// Waits until cni-controller says that it is ready.
    pub(super) async fn ready(&self, limit: Duration) -> Result<Instant> {
        self.admin("/readyz", limit, |answer| {
            answer.starts_with("HTTP/1.1 200")
        })
        .await
    }

    /// Waits until a metric of cni-controller has a value; all its label sets together.
    pub(super) async fn metric(&self, name: &str, wanted: f64) -> Result<Instant> {
        let sum = |text: &str| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with(name));
            lines
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum()
        };
        self.admin("/metrics", ports::LIMIT, |answer| sum(answer) >= wanted)
            .await
    }

    async fn admin(
        &self,
        path: &str,
        limit: Duration,
        good: impl Fn(&str) -> bool,
    ) -> Result<Instant> {
        let (address, _) = self.master().addresses();
        let address = SocketAddr::new(address.parse()?, ADMIN_PORT);
        let deadline = Instant::now() + limit;
        loop {
            let answer = get(address, path).await;
            if answer.as_ref().is_ok_and(|text| good(text)) {
                return Ok(Instant::now());
            }
            if Instant::now() > deadline {
                bail!("cni-controller's {path} after {limit:?}: {answer:?}");
            }
            // There is no event to wait for; a step is far below what is measured.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Rows of pods' ports, not those of nodes and routers.
fn of_pods() -> Condition {
    Condition::includes("external_ids", BTreeMap::from([("role", "pod")]))
}

async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .await
        .context("the answer is text")?;
    Ok(text)
}

/// Waits until a replica of [`Cluster::ports`] or [`Cluster::bindings`] has so many rows; when that was.
pub(super) async fn count(
    replica: &Replica,
    table: &str,
    wanted: usize,
    limit: Duration,
) -> Result<Instant> {
    let what = format!("{wanted} rows in {table}");
    let reached = ports::when_in(limit, replica, &what, |rows| {
        (rows.len(table) == wanted).then(Instant::now)
    });
    reached
        .await
        .with_context(|| format!("there are {} rows", replica.read(|rows| rows.len(table))))
}
