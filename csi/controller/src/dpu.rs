//! Calls of csi-node-dpu: what attaches a volume to a host.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use framework::{NbdAddress, Target};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use proto::attacher::v1::AttachmentId;
use proto::deadline::Deadline;
use proto::node::v1::host_volumes_client::HostVolumesClient;
use proto::node::v1::{
    AttachRequest, AttachResponse, DetachRequest, HealthRequest, HealthResponse, ResizeRequest,
};
use proto::volume::v1::nbd_source::Address as NbdSourceAddress;
use proto::volume::v1::source::Kind;
use proto::volume::v1::{EngineSource, NbdSource, Source, TcpAddress, Tls};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Response, Status};

use crate::backends::Served;
use crate::certificates::Credentials;
use crate::nodes::{Address, Node};
use crate::status::Answer;

const CONNECT: Duration = Duration::from_secs(5);
/// A machine that is gone says nothing: while an answer is waited for, a sign of life is asked for so often, and has to come
/// within [`CONNECT`].
const ALIVE: Duration = Duration::from_secs(10);

/// Connections to the nodes' csi-node-dpu.
#[derive(Debug)]
pub(crate) struct Dpus {
    credentials: Credentials,
    connections: Mutex<HashMap<String, Connection>>,
}

#[derive(Debug)]
struct Connection {
    address: Address,
    channel: Channel,
    /// Its certificate is too old then.
    until: Option<SystemTime>,
}

impl Dpus {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            connections: Mutex::default(),
        }
    }

    /// Attaches a volume to its host.
    ///
    /// # Errors
    /// What csi-node-dpu answered, as it is.
    pub(crate) async fn attach(
        &self,
        node: &Node,
        request: AttachRequest,
        deadline: Deadline,
    ) -> Answer<AttachResponse> {
        let call =
            |mut client: Client, request| async move { client.attach(request).await }.boxed();
        self.call(node, request, deadline, call).await
    }

    /// Takes a volume from its host.
    ///
    /// # Errors
    /// What csi-node-dpu answered, as it is.
    pub(crate) async fn detach(
        &self,
        node: &Node,
        uuid: &str,
        force: bool,
        deadline: Deadline,
    ) -> Answer<()> {
        let request = DetachRequest {
            id: Some(id(node, uuid)),
            force,
            generation: 0,
        };
        let call =
            |mut client: Client, request| async move { client.detach(request).await }.boxed();
        self.call(node, request, deadline, call).await.map(drop)
    }

    /// Shows the host the volume's size.
    ///
    /// # Errors
    /// What csi-node-dpu answered, as it is.
    pub(crate) async fn resize(
        &self,
        node: &Node,
        uuid: &str,
        bytes: u64,
        deadline: Deadline,
    ) -> Answer<()> {
        let request = ResizeRequest {
            id: Some(id(node, uuid)),
            size_bytes: bytes,
        };
        let call =
            |mut client: Client, request| async move { client.resize(request).await }.boxed();
        self.call(node, request, deadline, call).await.map(drop)
    }

    /// How the volume is at its host.
    ///
    /// # Errors
    /// What csi-node-dpu answered, as it is.
    pub(crate) async fn health(
        &self,
        node: &Node,
        uuid: &str,
        deadline: Deadline,
    ) -> Answer<HealthResponse> {
        let request = HealthRequest {
            id: Some(id(node, uuid)),
        };
        let call =
            |mut client: Client, request| async move { client.health(request).await }.boxed();
        self.call(node, request, deadline, call).await
    }

    async fn call<Q, A>(
        &self,
        node: &Node,
        message: Q,
        deadline: Deadline,
        call: impl FnOnce(Client, Request<Q>) -> BoxFuture<'static, Answer<Response<A>>> + Send,
    ) -> Answer<A> {
        let client = HostVolumesClient::new(self.channel(node).await?);
        let mut request = Request::new(message);
        request.set_timeout(deadline.left());
        let late = || Status::deadline_exceeded("no answer in time; call again");
        let answer = tokio::time::timeout_at(deadline.end(), call(client, request)).await;
        let answer = match answer.unwrap_or_else(|_| Err(late())) {
            // What tonic calls the end of a request's own timeout.
            Err(status) if status.code() == tonic::Code::Cancelled => Err(late()),
            answer => answer,
        };
        // A new connection reads the certificates anew: they may have been renewed.
        if answer
            .as_ref()
            .is_err_and(|status| status.code() == tonic::Code::Unavailable)
        {
            self.connections().remove(&node.id);
        }
        answer.map(Response::into_inner)
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, HashMap<String, Connection>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn channel(&self, node: &Node) -> Answer<Channel> {
        if let Some(there) = self.connections().get(&node.id)
            && there.address == node.address
            && there.until.is_none_or(|until| SystemTime::now() < until)
        {
            return Ok(there.channel.clone());
        }
        let (channel, until) = match &node.address {
            Address::Unix(path) => (proto::uds::channel(path), None),
            Address::Tls { uri, name } => self.connect(uri, name.as_deref()).await?,
            Address::Unknown => {
                return Err(Status::unavailable(format!(
                    "it is not known where node {} is reached",
                    node.id
                )));
            }
        };
        let connection = Connection {
            address: node.address.clone(),
            channel: channel.clone(),
            until,
        };
        self.connections().insert(node.id.clone(), connection);
        Ok(channel)
    }

    async fn connect(
        &self,
        uri: &str,
        name: Option<&str>,
    ) -> Answer<(Channel, Option<SystemTime>)> {
        let pems = self.credentials.get(uri).await?;
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(pems.ca))
            .identity(Identity::from_pem(pems.certificate, pems.key));
        if let Some(name) = name {
            tls = tls.domain_name(name);
        }
        let endpoint =
            Endpoint::from_shared(uri.to_owned()).and_then(|endpoint| endpoint.tls_config(tls));
        let endpoint = endpoint.map_err(|why| {
            Status::unavailable(format!(
                "{uri}, with the certificates of csi-controller: {why}"
            ))
        })?;
        let endpoint = { endpoint }
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(ALIVE)
            .keep_alive_timeout(CONNECT);
        Ok((endpoint.connect_lazy(), pems.until))
    }
}

type Client = HostVolumesClient<Channel>;

/// Of a volume at a host.
pub(crate) fn id(node: &Node, uuid: &str) -> AttachmentId {
    AttachmentId {
        host: node.id.clone(),
        volume_uuid: uuid.to_owned(),
    }
}

/// Whether the answer means that csi-node-dpu can't be asked: then the fence is at the target.
pub(crate) fn is_away(status: &Status) -> bool {
    use tonic::Code;
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
    )
}

/// A backend's target as a card's source.
pub(crate) fn source(target: &Target, served: &Served, reconnect: u32) -> Answer<Source> {
    let kind = match target {
        Target::SameNode { engine, daemon, .. } => Kind::Engine(EngineSource {
            engine_id: daemon.clone(),
            node_name: engine.clone(),
        }),
        Target::Nbd {
            address,
            export,
            tls,
        } => Kind::Nbd(NbdSource {
            address: Some(nbd_address(address)?),
            export_name: export.clone(),
            tls: tls.then(|| Tls {
                credentials: served.credentials.clone(),
                server_name: served.server_name.clone(),
            }),
            reconnect_delay_seconds: reconnect,
        }),
    };
    Ok(Source { kind: Some(kind) })
}

fn nbd_address(address: &NbdAddress) -> Answer<NbdSourceAddress> {
    Ok(match address {
        NbdAddress::Unix { path } => NbdSourceAddress::UnixPath(path.display().to_string()),
        NbdAddress::Tcp { host, port } if host.parse::<std::net::IpAddr>().is_ok() => {
            NbdSourceAddress::Tcp(TcpAddress {
                ip: host.clone(),
                port: u32::from(*port),
            })
        }
        NbdAddress::Tcp { host, .. } => {
            return Err(Status::failed_precondition(format!(
                "the backend serves volumes at {host:?}; give it an IP address: cards have no resolver"
            )));
        }
    })
}
