//! One host `h1` and its DPU `d1`, in a sandbox of the test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use channel::{DpuMetrics, HostState, LinkState, Server};
use clap::Parser as _;
use daemon::readiness::Readiness;
use prometheus_client::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dpu::Bridge;
use crate::config::{Command, Config, Run};
use crate::gateway::tests::sandbox::{eventually, sh};
use crate::host::node::HostNode;
use crate::host::start::{assemble, keep};
use crate::rounds::{Pace, Rounds};
pub(super) use crate::tests::world::{DB, WEB};

pub(super) const ADDRESS: &str = "127.0.0.1:9478";
pub(super) const FUNCTIONS: usize = 6;

pub(super) struct World {
    pub(super) home: PathBuf,
    pub(super) bridge: Arc<Bridge>,
    serving: Option<(CancellationToken, JoinHandle<()>)>,
}

impl World {
    /// The DPU serves; `web` and `db` have ports.
    pub(super) async fn start() -> Self {
        // The sandbox's own /run: it goes with it.
        let home = PathBuf::from("/run/outboard-test");
        let authority = Authority::new();
        for node in ["h1", "d1"] {
            authority.issue(&home.join(node), node);
        }
        pair(&home, true);
        std::fs::write(home.join("boot-id"), "this-boot\n").unwrap();
        let bridge = Arc::new(Bridge::new());
        bridge.allocate(WEB.uid, 5);
        bridge.allocate(DB.uid, 6);
        let mut world = Self {
            home,
            bridge,
            serving: None,
        };
        world.serve().await;
        world
    }

    /// The DPU's cni-node starts.
    pub(super) async fn serve(&mut self) {
        let listener = TcpListener::bind(ADDRESS).await.unwrap();
        let stop = CancellationToken::new();
        let server = Server {
            node: "d1".to_owned(),
            identity: self.home.join("d1"),
            host: watch::channel(Some("h1".to_owned())).1,
            release: "test",
            epoch: channel::epoch::of_this_process("dpu-boot"),
            ports: Arc::clone(&self.bridge) as Arc<dyn channel::Ports>,
            seen: watch::Sender::new(HostState::default()),
            refusals: broadcast::channel(8).0,
            metrics: DpuMetrics::register(&mut Registry::default()),
            check: Readiness::default().check("channel", "-"),
        };
        let until = stop.clone();
        let task = tokio::spawn(async move {
            channel::serve(listener, server, until).await.unwrap();
        });
        self.serving = Some((stop, task));
    }

    /// The DPU's cni-node ends.
    pub(super) async fn cut(&mut self) {
        let (stop, task) = self.serving.take().unwrap();
        stop.cancel();
        task.await.unwrap();
    }

    /// The host's cni-node starts; its loops run, and what the last one left is cleaned up.
    pub(super) async fn host(&self) -> Host {
        let host = Host::start(&self.home);
        host.ready().await;
        host
    }

    /// What is left of attachments of pods, on both sides.
    pub(super) fn leftovers(&self, host: &Host) -> Vec<String> {
        let records = host.node.store.all().into_iter();
        let records = records
            .filter(|record| record.sandbox().is_some())
            .map(|record| format!("record {}", record.id));
        let ports = self.bridge.sandboxes().into_iter();
        let ports = ports.map(|sandbox| format!("port of {sandbox}"));
        let home = at_home();
        let away = (0..FUNCTIONS)
            .map(|number| format!("vf{number}"))
            .filter(|name| !home.contains(name) && name != "vf0")
            .map(|name| format!("{name} is away"));
        records.chain(ports).chain(away).collect()
    }
}

/// The names of the functions' links that are at home.
pub(super) fn at_home() -> Vec<String> {
    let links = sh("ip -o link show type veth");
    let name = |line: &str| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned());
    links.lines().filter_map(name).collect()
}

/// Writes the file that says who is whose DPU, or removes it.
pub(super) fn pair(home: &Path, there: bool) {
    if !there {
        return std::fs::remove_file(home.join("h1/pairing.json")).unwrap();
    }
    pair_of(home, "d1", "h1");
}

/// Writes that file.
pub(super) fn pair_of(home: &Path, dpu: &str, host: &str) {
    let address: SocketAddr = ADDRESS.parse().unwrap();
    let text = format!(
        r#"{{"dpu":"{dpu}","host":"{host}","address":"{}","port":{},"controller":null,"uid":"u"}}"#,
        address.ip(),
        address.port()
    );
    std::fs::write(home.join("h1/.new"), text).unwrap();
    std::fs::rename(home.join("h1/.new"), home.join("h1/pairing.json")).unwrap();
}

/// The host's cni-node.
pub(super) struct Host {
    pub(super) node: Arc<HostNode>,
    pub(super) readiness: Readiness,
    pub(super) rounds: Rounds,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Host {
    pub(super) fn start(home: &Path) -> Self {
        let stop = CancellationToken::new();
        let mut registry = Registry::default();
        let rounds = Rounds::register(&mut registry);
        let readiness = Readiness::default();
        let host = assemble(&flags(home, &["--mode=host"]), &mut registry, &stop).unwrap();
        let node = Arc::clone(&host.node);
        let pace = |name| Pace::new(name, &rounds, &readiness, stop.clone());
        let tasks = TaskTracker::new();
        keep(host, pace, &tasks, &stop);
        tasks.close();
        Self {
            node,
            readiness,
            rounds,
            stop,
            tasks,
        }
    }

    pub(super) async fn ready(&self) {
        eventually("the host is ready", || self.readiness.is_ready()).await;
        self.up().await;
    }

    pub(super) async fn up(&self) {
        let is_up = |state: &LinkState| matches!(state, LinkState::Up { .. });
        let mut state = self.node.link.state();
        tokio::time::timeout(std::time::Duration::from_secs(20), state.wait_for(is_up))
            .await
            .expect("the channel comes up")
            .unwrap();
    }

    /// Ends it in peace; its attachments stay.
    pub(super) async fn end(self) {
        self.stop.cancel();
        self.tasks.wait().await;
        let weak = Arc::downgrade(&self.node);
        drop(self.node);
        eventually("all parts have ended", || weak.strong_count() == 0).await;
    }
}

/// Flags of cni-node, and more of them.
pub(super) fn flags(home: &Path, more: &[&str]) -> Run {
    let path = |name: &str| home.join(name).display().to_string();
    let functions = FUNCTIONS.to_string();
    let words = [
        "cni-node",
        "run",
        "--node-name=h1",
        "--card=veth",
        "--card-netns=/run/netns/dpu",
        "--card-functions",
        &functions,
        "--journal-dir",
        &path("journal"),
        "--channel-identity-dir",
        &path("h1"),
        "--boot-id-file",
        &path("boot-id"),
    ];
    let config = Config::try_parse_from(words.iter().chain(more)).unwrap();
    config.check().unwrap();
    match config.command {
        Command::Run(run) => *run,
        Command::Identity(_) => panic!("not this one"),
    }
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "ca");
        let key = KeyPair::generate().unwrap();
        Self {
            pem: params.self_signed(&key).unwrap().pem(),
            issuer: Issuer::new(params, key),
        }
    }

    fn issue(&self, directory: &Path, node: &str) {
        let mut params = CertificateParams::new([node.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, node);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join("ca.crt"), &self.pem).unwrap();
        std::fs::write(directory.join("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(directory.join("tls.key"), key.serialize_pem()).unwrap();
    }
}
