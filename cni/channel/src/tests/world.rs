//! A CA, certificates in directories, DPUs and hosts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daemon::readiness::Readiness;
use prometheus_client::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::card::Card;
use crate::hello::Dialect;
use crate::proto::{Attachment, Epoch, Trouble};
use crate::{
    DpuMetrics, HostMetrics, HostState, Link, LinkConfig, LinkState, Pairing, Refusal, Server, dpu,
};

/// Longer than anything takes.
pub(super) const LONG: Duration = Duration::from_secs(20);

pub(super) fn soon(seconds: f64) -> Instant {
    Instant::now() + Duration::from_secs_f64(seconds)
}

pub(super) struct Ca {
    pub(super) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "ca");
        let key = KeyPair::generate().unwrap();
        Self {
            pem: params.self_signed(&key).unwrap().pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate that lasts for so long, in the directory.
    pub(super) fn issue(&self, directory: &Path, node: &str, lasts: Duration) {
        let mut params = CertificateParams::new([node.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, node);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let day = Duration::from_secs(24 * 3600);
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + (now - day);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + (now + lasts);
        if lasts.is_zero() {
            params.not_after = rcgen::date_time_ymd(1970, 1, 1) + (now - day / 2);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join("ca.crt"), &self.pem).unwrap();
        std::fs::write(directory.join("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(directory.join("tls.key"), key.serialize_pem()).unwrap();
    }
}

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// A DPU `d1` with the host `h1`, and what all tests need.
pub(super) struct World {
    pub(super) ca: Ca,
    home: TempDir,
    pub(super) card: Arc<Card>,
    /// Which host is paired.
    pub(super) host: watch::Sender<Option<String>>,
    pub(super) seen: watch::Sender<HostState>,
    refusals: broadcast::Sender<Refusal>,
    refused: Mutex<broadcast::Receiver<Refusal>>,
    registry: Mutex<Registry>,
    metrics: DpuMetrics,
    pub(super) readiness: Readiness,
}

pub(super) struct Dpu {
    pub(super) address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Dpu {
    pub(super) async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(LONG, self.serving)
            .await
            .expect("a server that is told to stop does")
            .unwrap();
    }
}

pub(super) struct Host {
    pub(super) link: Link,
    pub(super) set: Arc<Mutex<Vec<Attachment>>>,
    pub(super) pairing: watch::Sender<Option<Pairing>>,
    pub(super) troubles: watch::Sender<Vec<Trouble>>,
    registry: Registry,
    stop: CancellationToken,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    pub(super) fn new() -> Self {
        let mut registry = Registry::default();
        let metrics = DpuMetrics::register(&mut registry);
        let (refusals, refused) = broadcast::channel(64);
        let world = Self {
            ca: Ca::new(),
            home: tempfile::tempdir().unwrap(),
            card: Card::new(),
            host: watch::Sender::new(Some("h1".to_owned())),
            seen: watch::Sender::new(HostState::default()),
            refusals,
            refused: Mutex::new(refused),
            registry: Mutex::new(registry),
            metrics,
            readiness: Readiness::default(),
        };
        for node in ["d1", "h1", "h2"] {
            world.ca.issue(&world.directory(node), node, DAY);
        }
        world
    }

    pub(super) fn directory(&self, node: &str) -> PathBuf {
        self.home.path().join(node)
    }

    pub(super) async fn dpu(&self) -> Dpu {
        let any = "127.0.0.1:0".parse().unwrap();
        self.dpu_at(any, Dialect::default()).await
    }

    pub(super) async fn dpu_at(&self, at: SocketAddr, dialect: Dialect) -> Dpu {
        let listener = TcpListener::bind(at).await.unwrap();
        self.dpu_on(listener, dialect)
    }

    /// Serves on a listener that is there.
    pub(super) fn dpu_on(&self, listener: TcpListener, dialect: Dialect) -> Dpu {
        let address = listener.local_addr().unwrap();
        let server = Server {
            node: "d1".to_owned(),
            identity: self.directory("d1"),
            host: self.host.subscribe(),
            release: "0.1.0",
            epoch: Epoch {
                boot_id: "boot-d1".to_owned(),
                process: u64::from(address.port()),
            },
            ports: self.card.clone(),
            seen: self.seen.clone(),
            refusals: self.refusals.clone(),
            metrics: self.metrics.clone(),
            check: self.readiness.check("channel", "not yet"),
        };
        let stop = CancellationToken::new();
        let serving = dpu::speaking(listener, server, dialect, stop.clone());
        let serving = tokio::spawn(async move { Box::pin(serving).await.unwrap() });
        Dpu {
            address,
            stop,
            serving,
        }
    }

    /// A host whose certificate is that of the node, with a link to the address.
    pub(super) fn host(&self, node: &str, at: SocketAddr) -> Host {
        self.host_speaking(node, at, Dialect::default())
    }

    pub(super) fn host_speaking(&self, node: &str, at: SocketAddr, dialect: Dialect) -> Host {
        let set = Arc::new(Mutex::new(Vec::new()));
        let given = Arc::clone(&set);
        let pairing = watch::Sender::new(Some(Pairing {
            dpu: "d1".to_owned(),
            address: at,
        }));
        let troubles = watch::Sender::new(Vec::new());
        let stop = CancellationToken::new();
        let mut registry = Registry::default();
        let config = LinkConfig {
            node: node.to_owned(),
            identity: self.directory(node),
            release: "0.1.0",
            epoch: epoch(node),
            set: Arc::new(move || given.lock().unwrap().clone()),
            troubles: troubles.subscribe(),
            metrics: HostMetrics::register(&mut registry),
        };
        Host {
            link: Link::speaking(config, dialect, pairing.subscribe(), stop.clone()),
            set,
            pairing,
            troubles,
            registry,
            stop,
        }
    }

    /// Returns when the DPU thinks so of its host.
    pub(super) async fn sees(&self, what: &str, test: impl Fn(&HostState) -> bool) -> HostState {
        let mut seen = self.seen.subscribe();
        let waited = tokio::time::timeout(LONG, seen.wait_for(&test)).await;
        match waited {
            Ok(seen) => seen.unwrap().clone(),
            Err(_) => panic!("{what}, but: {:?}", self.seen.borrow()),
        }
    }

    /// The next refusal for that reason.
    pub(super) async fn refused(&self, reason: &str) -> Refusal {
        let find = async {
            loop {
                let next = self.refused.lock().unwrap().try_recv();
                match next {
                    Ok(refusal) if refusal.reason == reason => return refusal,
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let found = tokio::time::timeout(LONG, find).await;
        found.unwrap_or_else(|_| panic!("nobody was refused for {reason}"))
    }

    pub(super) fn metrics(&self) -> String {
        text(&self.registry.lock().unwrap())
    }
}

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

pub(super) fn epoch(node: &str) -> Epoch {
    Epoch {
        boot_id: format!("boot-{node}"),
        process: 7,
    }
}

impl Host {
    pub(super) async fn is(&self, what: &str, test: impl Fn(&LinkState) -> bool) -> LinkState {
        let mut state = self.link.state();
        let waited = tokio::time::timeout(LONG, state.wait_for(&test)).await;
        match waited {
            Ok(state) => state.unwrap().clone(),
            Err(_) => panic!("{what}, but: {:?}", self.link.state().borrow()),
        }
    }

    pub(super) async fn up(&self) -> LinkState {
        self.is("up", |state| matches!(state, LinkState::Up { .. }))
            .await
    }

    pub(super) async fn down(&self) -> String {
        let down = |state: &LinkState| matches!(state, LinkState::Connecting { .. });
        self.is("down", down).await.why_not().unwrap()
    }

    /// Returns when the link is down because of that.
    pub(super) async fn down_for(&self, cause: &str) {
        let test = |state: &LinkState| {
            let why = state.why_not();
            why.is_some_and(|why| why.contains(cause))
        };
        self.is(cause, test).await;
    }

    pub(super) fn metrics(&self) -> String {
        text(&self.registry)
    }
}
