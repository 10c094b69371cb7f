//! `opi-bridge linux`: puts the parts together and keeps them until the program is told to end.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use daemon::admin::Admin;
use daemon::calls::Calls;
use daemon::readiness::{Check, Readiness};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::bridge::Bridge;
use crate::card::linux::{Linux, Places, Vm};
use crate::config;
use crate::objects::Objects;
use crate::service::Services;

/// Port of /metrics, /healthz and /readyz.
const ADMIN_PORT: u16 = 9482;
/// How often the engine is asked whether it is there.
const ASK: Duration = Duration::from_secs(5);

/// Runs the bridge. What is exposed stays when it returns.
pub(crate) async fn run(args: config::Linux, stop: CancellationToken) -> anyhow::Result<()> {
    let admin = Admin::bind(args.common.admin_address(ADMIN_PORT)).await?;
    let mut registry = Registry::default();
    daemon::process::register(&mut registry, "opi-bridge");
    let calls = Calls::register(&mut registry, "bridge");
    let checks = Readiness::default();

    let boot = journal::boot_id().context("reading the boot id")?;
    make_private(&args.state).context("--state")?;
    make_private(&args.exports_dir).context("--exports-dir")?;
    // kubelet may have made it, for csi-node-host's pod.
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&args.exports_dir, private).context("--exports-dir")?;
    let objects = Objects::open(&args.state.join("objects"), &boot).context("--state")?;
    let records = checks.check("records", "not read yet");
    let bad: Vec<_> = objects
        .quarantined()
        .iter()
        .map(|bad| bad.sentence.as_str())
        .collect();
    if bad.is_empty() {
        records.ready();
    } else {
        records.not_ready(bad.join("; "));
    }
    let engine = engine::Client::new(&args.engine);
    tokio::spawn(ask(engine.clone(), checks.check("engine", "not asked yet")));
    let places = Places {
        exports: args.exports_dir,
        credentials: args.credentials_dir,
        aio: args.aio.into(),
        node: args.node_name,
        vhost_gid: args.vhost_gid,
    };
    let vm = args
        .vm_monitor
        .map(|monitor| Vm::new(monitor, args.vm_ports));
    let card =
        Linux::new(engine, places, &args.state.join("linux"), &boot, vm).context("--state")?;
    let bridge = Bridge::new(card.clone(), objects, boot);
    // The follower first, so that it hears what the watch finds.
    tokio::spawn(Arc::clone(&bridge).follow());
    tokio::spawn(Arc::clone(&card).follow_certificates());
    tokio::spawn(card.watch());
    let replayed = checks.check(
        "volumes",
        "the volumes of an earlier run are being brought back",
    );
    tokio::spawn(Arc::clone(&bridge).replay_all(replayed));

    let services = Services { bridge, calls };
    let socket = daemon::socket::bind(&args.socket).context("--socket")?;
    let daemon::socket::Socket { listener, .. } = socket;
    let local = services.clone().on(Server::builder());
    let local = local.serve_with_incoming_shutdown(
        UnixListenerStream::new(listener),
        stop.clone().cancelled_owned(),
    );
    let mut servers = vec![tokio::spawn(local)];
    if let (Some(address), Some(dir)) = (args.address, &args.tls_dir) {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("--address {address}"))?;
        let server = Server::builder()
            .tls_config(tls(dir)?)
            .context("--tls-dir")?;
        let remote = services.on(server);
        let remote = remote.serve_with_incoming_shutdown(
            TcpListenerStream::new(listener),
            stop.clone().cancelled_owned(),
        );
        servers.push(tokio::spawn(remote));
    }
    admin.serve(registry, checks, stop).await?;
    for server in servers {
        // A watcher's stream has no end of its own.
        if let Ok(ended) = tokio::time::timeout(Duration::from_secs(2), server).await {
            ended.context("serving")?.context("serving")?;
        }
    }
    Ok(())
}

async fn ask(engine: engine::Client, check: Check) {
    loop {
        let info = engine.info(Instant::now() + ASK).await;
        check.set(info.map(drop));
        tokio::time::sleep(ASK).await;
    }
}

fn tls(dir: &Path) -> anyhow::Result<ServerTlsConfig> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read(&path).with_context(|| format!("--tls-dir: reading {}", path.display()))
    };
    let identity = Identity::from_pem(read("tls.crt")?, read("tls.key")?);
    Ok(ServerTlsConfig::new()
        .identity(identity)
        .client_ca_root(Certificate::from_pem(read("ca.crt")?)))
}

fn make_private(dir: &Path) -> anyhow::Result<()> {
    let mut made = std::fs::DirBuilder::new();
    made.recursive(true).mode(0o700);
    made.create(dir)
        .with_context(|| format!("can't make {}", dir.display()))
}
