//! `outboard-engine run`: puts the parts together and keeps them until the program is told to end.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use daemon::admin::Admin;
use daemon::readiness::Readiness;
use journal::Journal;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::config::Run;
use crate::metrics::Metrics;
use crate::place::State;
use crate::registry::Engine;
use crate::wire::Info;
use crate::{readiness, server, storage_daemon};

/// Port of /metrics, /healthz and /readyz.
const ADMIN_PORT: u16 = 9479;

/// Runs the engine. The daemons stay when it returns.
pub(crate) async fn run(args: Run, stop: CancellationToken) -> anyhow::Result<()> {
    let admin = Admin::bind(args.common.admin_address(ADMIN_PORT)).await?;
    let mut registry = Registry::default();
    daemon::process::register(&mut registry, "outboard-engine");
    let checks = Readiness::default();
    let metrics = Metrics::register(&mut registry);

    let boot = journal::boot_id().context("reading the boot id")?;
    let state = State(args.state);
    make_private(&state.0)?;
    make_private(&state.daemons())?;
    // Its lock keeps a second engine away from the same directory.
    let journal = Journal::open(state.records(), boot.clone()).context("--state")?;
    readiness::recipes(&checks, journal.quarantined());
    let program = args.storage_daemon.clone();
    let version = tokio::task::spawn_blocking(move || storage_daemon::version(&program)).await?;
    readiness::storage_daemon(&checks, &version, &args.storage_daemon);
    let info = Info {
        daemons: state.daemons(),
        boot_id: boot.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        storage_daemon: version.ok(),
    };
    let engine = Engine::new(
        state,
        boot,
        journal,
        args.storage_daemon,
        args.cgroup,
        metrics,
    );
    let engine = Arc::new(engine);
    let recovered = checks.check(
        "daemons",
        "the storage daemons of an earlier engine are being looked for",
    );
    tokio::spawn(readiness::watch_recovery(recovered, engine.recover()));
    let socket = daemon::socket::bind(&args.socket).context("--socket")?;
    let server = tokio::spawn(server::run(engine, info, socket, stop.clone()));
    admin.serve(registry, checks, stop).await?;
    server.await.context("serving the socket")
}

fn make_private(dir: &Path) -> anyhow::Result<()> {
    let mut made = std::fs::DirBuilder::new();
    made.recursive(true).mode(0o700);
    made.create(dir)
        .with_context(|| format!("--state: can't make {}", dir.display()))
}
