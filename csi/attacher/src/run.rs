//! `volume-attacher run`: puts the parts together and keeps them until the program is told to end.

use std::path::Path;

use anyhow::Context;
use daemon::admin::Admin;
use daemon::readiness::Readiness;
use journal::Journal;
use prometheus_client::registry::Registry;
use proto::attacher::v1::volume_attacher_server::VolumeAttacherServer;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::card::Card;
use crate::config::Run;
use crate::generation::Generations;
use crate::keeper::{self, Keeper};
use crate::metrics::Metrics;
use crate::peer::Peers;
use crate::record::Record;
use crate::service::Service;

/// Port of /metrics, /healthz and /readyz.
const ADMIN_PORT: u16 = 9487;

/// Runs the attacher. Attachments stay when it returns.
pub(crate) async fn run(args: Run, stop: CancellationToken) -> anyhow::Result<()> {
    let admin = Admin::bind(args.common.admin_address(ADMIN_PORT)).await?;
    let mut registry = Registry::default();
    daemon::process::register(&mut registry, "volume-attacher");
    let metrics = Metrics::register(&mut registry);
    let readiness = Readiness::default();

    let boot = journal::boot_id().context("reading the boot id")?;
    // Its lock keeps a second attacher away from the same directory.
    let journal =
        Journal::<Record>::open(args.state.join("attachments"), boot.clone()).context("--state")?;
    let generations = Journal::open(args.state.join("generations"), boot).context("--state")?;
    let records = readiness.check("journal", "not read yet");
    match journal.quarantined().first() {
        Some(bad) => records.not_ready(bad.sentence.clone()),
        None => records.ready(),
    }
    let keeper = Keeper::new(
        journal,
        Generations::new(generations),
        Card::new(args.bridge.clone()),
        args.hosts,
        metrics,
    );
    let bridge = readiness.check(
        "card",
        format!(
            "the card's service at {} was not reached yet",
            args.bridge.display()
        ),
    );
    let following = tokio::spawn(keeper::follow(keeper.clone(), bridge, stop.clone()));

    let service = Service::new(keeper, stop.clone());
    let socket = daemon::socket::bind(&args.socket).context("--socket")?;
    let local = Server::builder()
        .add_service(VolumeAttacherServer::new(service.clone()))
        .serve_with_incoming_shutdown(
            proto::uds::incoming(socket.listener),
            stop.clone().cancelled_owned(),
        );
    let network = async {
        let (Some(address), Some(dir)) = (args.listen, &args.tls) else {
            return Ok(());
        };
        let peers = Peers::new(args.allow);
        let guarded = VolumeAttacherServer::with_interceptor(service, move |r| peers.check(r));
        let incoming = TcpIncoming::bind(address)
            .with_context(|| format!("--listen {address}: can't listen there"))?;
        Server::builder()
            .tls_config(tls(dir)?)
            .context("--tls")?
            .add_service(guarded)
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned())
            .await
            .context("serving --listen")
    };
    let admin = admin.serve(registry, readiness, stop.clone());
    let local = async { local.await.context("serving --socket") };
    let result = tokio::try_join!(local, network, admin);
    stop.cancel();
    following.await.context("following the card")?;
    result.map(|_| ())
}

fn tls(dir: &Path) -> anyhow::Result<ServerTlsConfig> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read(&path).with_context(|| format!("--tls: can't read {}", path.display()))
    };
    let identity = Identity::from_pem(read("server-cert.pem")?, read("server-key.pem")?);
    let callers = Certificate::from_pem(read("ca-cert.pem")?);
    Ok(ServerTlsConfig::new()
        .identity(identity)
        .client_ca_root(callers))
}
