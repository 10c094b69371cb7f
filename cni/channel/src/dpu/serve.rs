//! Connections: how many, and for how long without a session.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use mtls::server::{Acceptor, Cause};
use mtls::{Connection, Files, Peer};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use super::Server;
use super::desk::{CALLS, Desk, Parts, name};
use super::refusal::Refusals;
use super::service::Service;
use crate::hello::Dialect;
use crate::proto::channel_server::ChannelServer;

/// A connection without a session is cut then: a host that means it says Hello at once.
const LOITERING: Duration = Duration::from_secs(5);
/// TLS takes no longer, or somebody wants us to wait.
const PATIENCE: Duration = Duration::from_secs(3);
/// So many connections at once of the host itself, and of all others that have a certificate.
const OF_HOST: usize = 16;
const OF_OTHERS: usize = 16;
/// What is still to be said when the server stops is said by then.
const FAREWELL: Duration = Duration::from_millis(500);
/// A full set with room to spare.
const LARGEST: usize = 4 << 20;
/// Bytes on their way, so that a large set does not crawl.
const WINDOW: u32 = 1 << 20;

/// Serves the host until it is told to stop. Ports stay as they are then.
///
/// # Errors
/// The listener is broken.
pub async fn serve(
    listener: TcpListener,
    server: Server,
    stop: CancellationToken,
) -> io::Result<()> {
    Box::pin(speaking(listener, server, Dialect::default(), stop)).await
}

pub(crate) async fn speaking(
    listener: TcpListener,
    server: Server,
    dialect: Dialect,
    stop: CancellationToken,
) -> io::Result<()> {
    let parts = Parts {
        host: server.host,
        seen: server.seen,
        refusals: Refusals::new(server.metrics.clone(), server.refusals),
        metrics: server.metrics,
        ports: server.ports,
    };
    let desk = Desk::new(server.node, dialect, server.release, server.epoch, parts);
    let desk = Arc::new(desk);
    let doorkeeper = Arc::clone(&desk);
    let acceptor = Acceptor::new(Files::in_directory(&server.identity), server.check)
        .patience(PATIENCE)
        .tell(move |refused| {
            // Who looks whether the port is open has done nothing wrong.
            if refused.cause != Cause::Gone {
                let peer = refused.address.map(|a| a.to_string()).unwrap_or_default();
                doorkeeper
                    .refusals
                    .refuse(refused.cause.as_str(), peer, refused.sentence);
            }
        });
    let lobby = Lobby {
        desk: Arc::clone(&desk),
        of_host: Arc::new(Semaphore::new(OF_HOST)),
        of_others: Arc::new(Semaphore::new(OF_OTHERS)),
        stop: stop.clone(),
    };
    // A small answer must not wait until the one before it was acknowledged.
    let sockets = TcpIncoming::from(listener).with_nodelay(Some(true));
    let incoming = acceptor.incoming(sockets).filter_map(move |connection| {
        let let_in = connection.map(|connection| lobby.let_in(connection));
        std::future::ready(let_in.transpose())
    });
    let service = ChannelServer::new(Service(Arc::clone(&desk)));
    // More than a host may have under way, so that it is told so and does not hang.
    let streams = u32::try_from(2 * CALLS).unwrap_or(u32::MAX);
    let serving = tonic::transport::Server::builder()
        .max_concurrent_streams(streams)
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .add_service(service.max_decoding_message_size(LARGEST))
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let (served, ()) = tokio::join!(serving, desk.follow(stop.clone()));
    desk.tasks.close();
    desk.tasks.wait().await;
    served.map_err(io::Error::other)
}

/// Where connections are without a session.
struct Lobby {
    desk: Arc<Desk>,
    of_host: Arc<Semaphore>,
    of_others: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Lobby {
    fn let_in(&self, connection: Connection) -> Option<Connection> {
        let peer = connection.peer().clone();
        let room = if self.desk.paired(&peer) {
            &self.of_host
        } else {
            &self.of_others
        };
        let Ok(room) = Arc::clone(room).try_acquire_owned() else {
            let refusals = &self.desk.refusals;
            let who = name(&peer);
            refusals.refuse(
                "too_many_connections",
                who.clone(),
                format!("{who} has too many connections at once"),
            );
            return None;
        };
        let desk = Arc::clone(&self.desk);
        tokio::spawn(escort(desk, peer, room, self.stop.clone()));
        Some(connection)
    }
}

/// Sees to it that a connection ends.
async fn escort(desk: Arc<Desk>, peer: Peer, _room: OwnedSemaphorePermit, stop: CancellationToken) {
    tokio::select! {
        () = peer.gone() => return,
        () = tokio::time::sleep(LOITERING) => {}
        () = stop.cancelled() => {}
    }
    if desk.in_session(&peer) {
        tokio::select! {
            () = peer.gone() => return,
            () = stop.cancelled() => {}
        }
    }
    if stop.is_cancelled() {
        tokio::time::sleep(FAREWELL).await;
    }
    peer.cut();
}
