//! `csi-node-dpu run`: puts the parts together and keeps them until the program is told to end.

use anyhow::Context;
use daemon::admin::Admin;
use daemon::readiness::Readiness;
use daemon::socket::Socket;
use mtls::server::Acceptor;
use prometheus_client::registry::Registry;
use proto::node::v1::host_agent_server::HostAgentServer;
use proto::node::v1::host_volumes_server::HostVolumesServer;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::agent::Agent;
use super::attacher::Attacher;
use super::caller::{self, Caller, Names};
use super::config::Run;
use super::controller::Controller;
use super::metrics::Metrics;
use super::tls;

/// Port of /metrics, /healthz and /readyz.
const ADMIN_PORT: u16 = 9488;

/// Runs the daemon.
pub(crate) async fn run(args: Run, stop: CancellationToken) -> anyhow::Result<()> {
    let admin = Admin::bind(args.common.admin_address(ADMIN_PORT)).await?;
    let mut registry = Registry::default();
    daemon::process::register(&mut registry, "csi-node-dpu");
    let metrics = Metrics::register(&mut registry);
    let readiness = Readiness::default();

    let names = Names::new(&args.controller_name, &args.serves);
    let attacher = Attacher::new(args.attacher.clone());
    let why = format!(
        "volume-attacher at {} was not reached yet",
        args.attacher.display()
    );
    let check = readiness.check("attacher", why);
    let following = tokio::spawn(attacher.clone().follow(check, stop.clone()));
    let agent = Agent {
        attacher: attacher.clone(),
        metrics: metrics.clone(),
    };
    let controller = Controller {
        names: names.clone(),
        attacher,
        metrics,
    };

    let socket = daemon::socket::bind(&args.controller_socket).context("--controller-socket")?;
    let local_controller = Server::builder()
        .add_service(HostVolumesServer::with_interceptor(
            controller.clone(),
            caller::local(Caller::Controller),
        ))
        .serve_with_incoming_shutdown(incoming(socket), stop.clone().cancelled_owned());
    let local_host = local_host(&args, agent.clone(), stop.clone());
    let network = network(&args, names, controller, agent, &readiness, stop.clone());
    let admin = admin.serve(registry, readiness.clone(), stop.clone());
    let local_controller = async {
        local_controller
            .await
            .context("serving --controller-socket")
    };
    let result = tokio::try_join!(local_controller, local_host, network, admin);
    stop.cancel();
    following.await.context("following volume-attacher")?;
    result.map(|_| ())
}

/// Whose the socket is must be no question: it exists only where one node is served.
async fn local_host(args: &Run, agent: Agent, stop: CancellationToken) -> anyhow::Result<()> {
    let [only] = args.serves.as_slice() else {
        return Ok(());
    };
    let socket = daemon::socket::bind(&args.host_socket).context("--host-socket")?;
    let who = caller::local(Caller::Host(only.clone()));
    Server::builder()
        .add_service(HostAgentServer::with_interceptor(agent, who))
        .serve_with_incoming_shutdown(incoming(socket), stop.cancelled_owned())
        .await
        .context("serving --host-socket")
}

async fn network(
    args: &Run,
    names: Names,
    controller: Controller,
    agent: Agent,
    readiness: &Readiness,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (Some(address), Some(dir)) = (args.listen, &args.tls) else {
        return Ok(());
    };
    let (of_controller, of_host) = (names.clone(), names);
    let incoming = TcpIncoming::bind(address)
        .with_context(|| format!("--listen {address}: can't listen there"))?;
    tracing::info!(address = %incoming.local_addr().context("--listen")?, "serving over mTLS");
    let check = readiness.check("tls", format!("{} was not read yet", dir.display()));
    let incoming = Acceptor::new(tls::files(dir), check).incoming(incoming);
    Server::builder()
        .add_service(HostVolumesServer::with_interceptor(controller, move |r| {
            of_controller.certified(r)
        }))
        .add_service(HostAgentServer::with_interceptor(agent, move |r| {
            of_host.certified(r)
        }))
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
        .context("serving --listen")
}

/// The lock of the socket lives as long as the listener.
fn incoming(
    socket: Socket,
) -> impl futures::Stream<Item = std::io::Result<tokio::net::UnixStream>> {
    futures::stream::unfold(socket, |socket| async move {
        let accepted = socket.listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, socket))
    })
}
