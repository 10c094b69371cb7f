//! How a session begins: a connection, Hello, Welcome.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mtls::client::Connector;
use mtls::{Connection, Peer};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Status, Streaming};

use super::{Pairing, Shared};
use crate::heartbeat::DEAD;
use crate::proto::channel_client::ChannelClient;
use crate::proto::session_request::Message as FromHost;
use crate::proto::session_response::Message as FromDpu;
use crate::proto::{Epoch, Hello, SessionRequest, SessionResponse, Welcome};
use crate::{Failure, epoch};

/// TCP takes no longer on the way to a card in the same machine, or the rack: a SYN that was lost is better sent anew than waited for.
const CONNECT: Duration = Duration::from_millis(250);
/// TLS takes no longer; it needs processors, which may be busy.
const SHAKE: Duration = Duration::from_secs(3);
/// A DPU that does not read is as good as dead: no more than this is kept for it.
pub(crate) const QUEUE: usize = 16;
/// What the DPU answers to the largest set.
const LARGEST: usize = 16 << 20;
/// Bytes on their way, so that a large set does not crawl.
const WINDOW: u32 = 1 << 20;

/// A session that was welcomed.
pub(crate) struct Opened {
    pub(crate) dpu: String,
    pub(crate) id: String,
    pub(crate) epoch: Epoch,
    pub(crate) release: String,
    pub(crate) features: Vec<String>,
    pub(crate) peer: Cut,
    pub(crate) client: ChannelClient<Channel>,
    pub(crate) to: mpsc::Sender<SessionRequest>,
    pub(crate) from: Streaming<SessionResponse>,
}

/// A peer whose connection ends when this is dropped.
pub(crate) struct Cut(pub(crate) Peer);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// Why there is no session.
pub(crate) struct Failed {
    pub(crate) why: String,
    /// Somebody is at the address: it is no wire that swallows everything.
    pub(crate) answered: bool,
}

/// A session, or why there is none.
pub(crate) async fn dial(
    shared: &Shared,
    target: &Pairing,
    connector: &mut Connector,
) -> Result<Opened, Failed> {
    let stream = connect(target.address).await.map_err(|why| Failed {
        why,
        answered: false,
    })?;
    let opened = open(shared, target, connector, stream).await;
    opened.map_err(|why| Failed {
        why,
        answered: true,
    })
}

async fn connect(at: SocketAddr) -> Result<TcpStream, String> {
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(at)).await;
    let stream = stream.map_err(|_| format!("{at} did not answer within {CONNECT:?}"))?;
    let stream = stream.map_err(|why| format!("can't connect to {at}: {why}"))?;
    // A small request must not wait until the one before it was acknowledged.
    let prompt = stream.set_nodelay(true);
    prompt.map_err(|why| format!("the connection to {at} can't be set up: {why}"))?;
    Ok(stream)
}

/// TLS, Hello and Welcome.
async fn open(
    shared: &Shared,
    target: &Pairing,
    connector: &mut Connector,
    stream: TcpStream,
) -> Result<Opened, String> {
    let at = target.address;
    let shaken = tokio::time::timeout(SHAKE, connector.connect(&target.dpu, stream)).await;
    let connection = shaken.map_err(|_| format!("{at} did not answer within {SHAKE:?}"))?;
    let connection = connection.map_err(|why| format!("{at}: {why}"))?;
    let peer = Cut(connection.peer().clone());
    let welcoming = tokio::time::timeout(DEAD, hello(shared, connection)).await;
    let (client, to, from, welcome) = match welcoming {
        Ok(Ok(welcomed)) => welcomed,
        Ok(Err(status)) => return Err(why(&peer.0, &status)),
        Err(_) => return Err(format!("{at} did not answer Hello within {DEAD:?}")),
    };
    check(shared, &welcome)?;
    let features = shared.dialect.common_features(&welcome.features);
    let epoch = welcome.epoch.unwrap_or_default();
    tracing::info!(
        host = shared.config.node,
        dpu = target.dpu,
        session = welcome.session,
        release = welcome.release,
        epoch = epoch::text(&epoch),
        "session begun"
    );
    shared.config.metrics.session();
    Ok(Opened {
        dpu: target.dpu.clone(),
        id: welcome.session,
        epoch,
        release: welcome.release,
        features,
        peer,
        client,
        to,
        from,
    })
}

type Welcomed = (
    ChannelClient<Channel>,
    mpsc::Sender<SessionRequest>,
    Streaming<SessionResponse>,
    Welcome,
);

async fn hello(shared: &Shared, connection: Connection) -> Result<Welcomed, Status> {
    let channel = over(connection).await;
    let channel = channel.map_err(|why| Status::unavailable(why.to_string()))?;
    let mut client = ChannelClient::new(channel).max_decoding_message_size(LARGEST);
    let (to, messages) = mpsc::channel(QUEUE);
    let hello = SessionRequest {
        message: Some(FromHost::Hello(Hello {
            version: shared.dialect.newest(),
            features: shared.dialect.features(),
            epoch: Some(shared.config.epoch.clone()),
            release: shared.config.release.to_owned(),
        })),
    };
    // The queue is empty, and its other end is in our hands.
    let _ = to.try_send(hello);
    let opened = client.session(ReceiverStream::new(messages)).await?;
    let mut from = opened.into_inner();
    loop {
        match from.message().await? {
            Some(SessionResponse {
                message: Some(FromDpu::Welcome(welcome)),
            }) => return Ok((client, to, from, welcome)),
            Some(_) => {}
            None => return Err(Status::unavailable("it ended the session before Welcome")),
        }
    }
}

/// gRPC over this one connection: none is made in its place, for a session ends with its connection.
pub(crate) async fn over(connection: Connection) -> Result<Channel, tonic::transport::Error> {
    let only = Arc::new(Mutex::new(Some(connection)));
    let connector = tower::service_fn(move |_: Uri| {
        let taken = only.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ended = || std::io::Error::from(std::io::ErrorKind::NotConnected);
        std::future::ready(taken.map(TokioIo::new).ok_or_else(ended))
    });
    Endpoint::from_static("http://dpu")
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .connect_with_connector(connector)
        .await
}

fn check(shared: &Shared, welcome: &Welcome) -> Result<(), String> {
    let dialect = &shared.dialect;
    if !dialect.versions.contains(&welcome.version) {
        return Err(format!(
            "it welcomes with version {}, this host speaks {}",
            welcome.version,
            dialect.spoken()
        ));
    }
    if welcome.session.is_empty() {
        return Err("it welcomes without a session".to_owned());
    }
    Ok(())
}

/// Why a session ended: what TLS or TCP said, if they did, for gRPC hides it.
pub(crate) fn why(peer: &Peer, status: &Status) -> String {
    match (Failure::of(status), peer.broken()) {
        (Some(failure), _) => failure.cause,
        (None, Some(broken)) => format!("the connection broke: {broken}"),
        (None, None) => format!("{} ({:?})", status.message(), status.code()),
    }
}
