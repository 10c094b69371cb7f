//! A cni-controller with watches of its own on a northbound database of its own, without election.

use crate::server::Server;
use crate::world::{View, settings};
use cni_controller::engine::{Engine, Parts};
use cni_controller::index::{Index, Settings};
use cni_controller::metrics::Metrics;
use cni_controller::report::{Board, Notice, Reports};
use cni_controller::shared::Shared;
use cni_controller::{Turn, watch as watches};
use daemon::readiness::Readiness;
use kube::Client;
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Seconds after which production asks for a watch again.
pub(crate) const USUAL: u32 = watches::PERIOD;

/// Ends with the value.
pub(crate) struct Controller {
    pub(crate) board: Arc<Board>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) reports: Reports,
    pub(crate) metrics: Metrics,
    pub(crate) notices: Option<mpsc::Receiver<Notice>>,
    pub(crate) turn: watch::Sender<Turn>,
    pub(crate) view: View,
    _tasks: (JoinSet<()>, JoinSet<()>),
    _server: Server,
}

impl Controller {
    /// One that writes. `client` may lead through a proxy.
    pub(crate) async fn start(client: &Client, period: u32) -> Self {
        let server = Server::northbound();
        let view = View::of(&server).await;
        let kinds = watches::KINDS;
        let settings: Settings = settings();
        let shared = Arc::new(Shared::new(Index::new(settings), kinds));
        let (reports, notices) = Reports::new();
        let board = reports.board.clone();
        let metrics = Metrics::new(&mut Registry::default());
        let engine = Engine::new(Parts {
            shared: shared.clone(),
            nb: server.client("OVN_Northbound"),
            chassis: None,
            identity: "test".to_owned(),
            reports: reports.clone(),
            metrics: metrics.clone(),
            readiness: Readiness::default(),
        });
        let (turn, confirmed) = watch::channel(Some(Instant::now()));
        let mut tasks = JoinSet::new();
        tasks.spawn(engine.run(confirmed, CancellationToken::new()));
        let watching = watches::start(client, &shared, period);
        Self {
            board,
            shared,
            reports,
            metrics,
            notices: Some(notices),
            turn,
            view,
            _tasks: (tasks, watching),
            _server: server,
        }
    }

    /// Waits until there is a port of that name.
    pub(crate) async fn has_port(&self, name: &str) {
        self.view
            .until(name, |view| view.ports().contains_key(name).then_some(()))
            .await;
    }

    /// Waits until exactly these pods of the namespace have ports, each with its UID.
    pub(crate) async fn converged(&self, what: &str, ns: &str, pods: &BTreeSet<(String, String)>) {
        let there = |view: &View| -> BTreeSet<(String, String)> {
            let prefix = format!("{ns}/");
            let ports = view.ports();
            let ours = ports.iter().filter_map(|(name, facts)| {
                let rest = name.strip_prefix(&prefix)?;
                let pod = rest.split('/').next()?.to_owned();
                Some((pod, facts.pod()?.uid.clone()))
            });
            ours.collect()
        };
        self.view
            .until(what, |view| (there(view) == *pods).then_some(()))
            .await;
    }
}
