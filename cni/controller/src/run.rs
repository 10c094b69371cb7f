//! Puts the program together.

use crate::chassis::Chassis;
use crate::engine::{Engine, Parts};
use crate::index::Index;
use crate::lease::Candidate;
use crate::metrics::Metrics;
use crate::report::Reports;
use crate::shared::Shared;
use crate::{Config, defaults, lease, notices, pairs, status, watch};
use anyhow::Context as _;
use daemon::admin::Admin;
use daemon::readiness::Readiness;
use identity::sign;
use kube::Client;
use ovsdb::Remote;
use prometheus_client::registry::Registry;
use rand::RngExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The port of the admin server unless the flag says otherwise.
const ADMIN_PORT: u16 = 9477;

/// Runs until the token is cancelled.
///
/// # Errors
/// Flags that cannot be, no way to the API server's address, a taken admin address.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    config.check()?;
    let settings = config.settings();
    let kube = kubernetes().await.context(
        "finding the API server: run in a pod with a service account, or set KUBECONFIG",
    )?;
    let nb = database("OVN_Northbound", &config.nb, &config);
    let chassis = match config.sb.as_slice() {
        [] => None,
        remotes => Some(Chassis::new(database("OVN_Southbound", remotes, &config))),
    };

    let mut registry = Registry::default();
    daemon::process::register(&mut registry, "cni-controller");
    let metrics = Metrics::new(&mut registry);
    let readiness = Readiness::default();
    let admin = Admin::bind(config.common.admin_address(ADMIN_PORT)).await?;

    let shared = Arc::new(Shared::new(Index::new(settings.clone()), watch::KINDS));
    let (reports, notices) = Reports::new();
    let board = reports.board.clone();
    // Never the same twice: a mark in NB_Global must not be taken for that of a former process.
    let predecessors = config.identity.as_ref().map(|name| format!("{name}_"));
    let prefix = predecessors.as_deref().unwrap_or("cni-controller_");
    let identity = format!("{prefix}{:08x}", rand::rng().random::<u32>());
    let engine = Engine::new(Parts {
        shared: shared.clone(),
        nb,
        chassis,
        identity: identity.clone(),
        reports: reports.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
    });

    let candidate = Candidate {
        lease: lease::NAME.to_owned(),
        identity: identity.clone(),
        predecessors,
        duration: Duration::from_secs(config.lease_seconds),
    };
    let watches = watch::start(&kube, &shared, watch::PERIOD);
    let (turn, confirmed) = tokio::sync::watch::channel(None);
    let mut tasks = JoinSet::new();
    tasks.spawn(notices::run(kube.clone(), identity, notices, stop.clone()));
    tasks.spawn(status::run(
        kube.clone(),
        board,
        candidate.clone(),
        confirmed.clone(),
        stop.clone(),
    ));
    let pairs = pairs::Parts {
        client: kube.clone(),
        shared: shared.clone(),
        reports: reports.clone(),
        metrics: metrics.clone(),
        candidate: candidate.clone(),
        patience: pairs::PATIENCE,
    };
    tasks.spawn(pairs::run(pairs, confirmed.clone(), stop.clone()));
    for signer in config.signers() {
        tasks.spawn(sign::run(kube.clone(), signer));
    }
    let election = tokio::spawn({
        let stop = stop.clone();
        async move {
            // Who writes without them would tell every node and pod that its subnet does not exist.
            tokio::select! {
                () = stop.cancelled() => return,
                () = defaults::create(kube.clone(), settings) => {}
            }
            lease::run(kube, candidate, turn, stop).await;
        }
    });
    let engine = tokio::spawn(engine.run(confirmed, stop.clone()));
    admin.serve(registry, readiness, stop.clone()).await?;

    engine.await.context("the engine ended with a panic")?;
    election.await.context("the election ended with a panic")?;
    drop((tasks, watches));
    Ok(())
}

async fn kubernetes() -> anyhow::Result<Client> {
    Ok(informer::client(kube::Config::infer().await?)?)
}

fn database(name: &str, remotes: &[Remote], config: &Config) -> ovsdb::Client {
    ovsdb::Client::start(ovsdb::Config {
        leader_only: name == "OVN_Northbound",
        tls: config.nb_tls(),
        ..ovsdb::Config::new(name, remotes.to_vec())
    })
}
