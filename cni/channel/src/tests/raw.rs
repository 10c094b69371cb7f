//! A host made by hand: what it says is not what a host of ours would.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use mtls::client::Connector;
use mtls::{Files, Peer};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::world::epoch;
use crate::host::over;
use crate::proto::channel_client::ChannelClient;
use crate::proto::session_request::Message as FromHost;
use crate::proto::session_response::Message as FromDpu;
use crate::proto::{
    AttachProgress, AttachRequest, Attachment, FullSet, Heartbeat, Hello, SessionRequest,
    SessionResponse, Welcome,
};

pub(super) struct Raw {
    pub(super) client: ChannelClient<Channel>,
    pub(super) channel: Channel,
    pub(super) peer: Peer,
}

pub(super) struct Session {
    pub(super) to: mpsc::Sender<SessionRequest>,
    pub(super) from: Streaming<SessionResponse>,
    pub(super) welcome: Welcome,
}

pub(super) fn hello() -> Hello {
    Hello {
        version: 1,
        features: Vec::new(),
        epoch: Some(epoch("raw")),
        release: "raw".to_owned(),
    }
}

impl Raw {
    pub(super) async fn connect(at: SocketAddr, directory: &Path) -> Self {
        Self::connect_from("127.0.0.1", at, directory).await
    }

    pub(super) async fn connect_from(from: &str, at: SocketAddr, directory: &Path) -> Self {
        let mut connector = Connector::new(Files::in_directory(directory));
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind((from.parse::<IpAddr>().unwrap(), 0).into())
            .unwrap();
        let stream = socket.connect(at).await.unwrap();
        let connection = connector.connect("d1", stream).await.unwrap();
        let peer = connection.peer().clone();
        let channel = over(connection).await.unwrap();
        Self {
            client: ChannelClient::new(channel.clone()),
            channel,
            peer,
        }
    }

    pub(super) async fn hello(&mut self, hello: Hello) -> Result<Session, Status> {
        let (to, messages) = mpsc::channel(64);
        to.try_send(message(FromHost::Hello(hello))).unwrap();
        let from = self.client.session(ReceiverStream::new(messages)).await?;
        let mut from = from.into_inner();
        let first = from.message().await?.unwrap();
        let Some(FromDpu::Welcome(welcome)) = first.message else {
            panic!("no Welcome but {first:?}");
        };
        Ok(Session { to, from, welcome })
    }

    pub(super) async fn attach(
        &mut self,
        session: &str,
        attachment: Option<Attachment>,
    ) -> Result<Streaming<AttachProgress>, Status> {
        let request = Request::new(AttachRequest {
            session: session.to_owned(),
            attachment,
        });
        let answer = self.client.attach(request).await?;
        Ok(answer.into_inner())
    }
}

impl Session {
    pub(super) fn say(&self, what: FromHost) {
        // After the end nobody takes it.
        let _ = self.to.try_send(message(what));
    }

    pub(super) fn beat(&self) {
        self.say(FromHost::Heartbeat(Heartbeat::default()));
    }

    pub(super) fn full_set(&self, attachments: Vec<Attachment>) {
        self.say(FromHost::FullSet(FullSet { attachments }));
    }

    /// The next message that is no heartbeat. None: the end without a word.
    pub(super) async fn next(&mut self) -> Result<Option<FromDpu>, Status> {
        while let Some(message) = self.from.message().await? {
            match message.message {
                Some(FromDpu::Heartbeat(_)) => self.beat(),
                other => return Ok(other),
            }
        }
        Ok(None)
    }
}

fn message(message: FromHost) -> SessionRequest {
    SessionRequest {
        message: Some(message),
    }
}
