//! The steps of a volume's life, as the sidecars and kubelet do them.
//!
//! Each step repeats its call while the answer is one that asks for it (UNAVAILABLE, ABORTED, DEADLINE_EXCEEDED), for a
//! minute in all; [`Calls::once`] makes it ask but once. For anything else there are the plain clients.

mod controller;
mod node;
mod volume;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proto::csi::v1::controller_client::ControllerClient;
use proto::csi::v1::group_controller_client::GroupControllerClient;
use proto::csi::v1::identity_client::IdentityClient;
use proto::csi::v1::node_client::NodeClient;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

pub use volume::{Published, Snapshot, Usage, Volume};

/// `publish_context`, `volume_context`, parameters, secrets.
pub type Map = BTreeMap<String, String>;

/// For one step, with its repetitions.
const PATIENCE: Duration = Duration::from_secs(60);
/// For one call.
const CALL: Duration = Duration::from_secs(30);
/// Between two.
const PAUSE: Duration = Duration::from_millis(100);

/// A host, as far as calls need it.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) channel: Channel,
    pub(super) kubelet: PathBuf,
    /// Its file system, as this process reaches it.
    pub(super) root: PathBuf,
}

/// Clients of a chain. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Calls {
    controller: Channel,
    nodes: Arc<[Node]>,
    patience: Duration,
    secret: Option<Arc<str>>,
}

impl Calls {
    pub(super) fn new(controller: Channel, nodes: Vec<Node>) -> Self {
        Self {
            controller,
            nodes: nodes.into(),
            patience: PATIENCE,
            secret: None,
        }
    }

    /// The same, asking but once.
    #[must_use]
    pub fn once(&self) -> Self {
        Self {
            patience: Duration::ZERO,
            ..self.clone()
        }
    }

    /// The same, giving this secret along with every call that takes some.
    #[must_use]
    pub fn with_secret(&self, secret: &str) -> Self {
        Self {
            secret: Some(secret.into()),
            ..self.clone()
        }
    }

    /// Identity of a host's csi-node-host, or of csi-controller.
    #[must_use]
    pub fn identity(&self, node: Option<usize>) -> IdentityClient<Channel> {
        let channel = node.map_or(&self.controller, |node| &self.nodes[node].channel);
        IdentityClient::new(channel.clone())
    }

    /// Of csi-controller.
    #[must_use]
    pub fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.controller.clone())
    }

    /// Of csi-controller.
    #[must_use]
    pub fn groups(&self) -> GroupControllerClient<Channel> {
        GroupControllerClient::new(self.controller.clone())
    }

    /// Of a host's csi-node-host.
    #[must_use]
    pub fn node(&self, host: usize) -> NodeClient<Channel> {
        NodeClient::new(self.nodes[host].channel.clone())
    }

    /// A host's name: its node id.
    #[must_use]
    pub fn name(&self, host: usize) -> &'static str {
        self.nodes[host].name
    }

    fn secrets(&self) -> Map {
        let secret = self.secret.iter();
        secret
            .map(|secret| ("password".to_owned(), secret.to_string()))
            .collect()
    }

    /// One step.
    async fn ask<Q: Clone, A, F>(
        &self,
        question: Q,
        call: impl Fn(Request<Q>) -> F,
    ) -> Result<A, Status>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let end = Instant::now() + self.patience;
        loop {
            let mut request = Request::new(question.clone());
            request.set_timeout(CALL);
            match call(request).await {
                Err(status) if Instant::now() < end && is_repeated(&status) => {
                    tokio::time::sleep(PAUSE).await;
                }
                answer => return answer.map(Response::into_inner),
            }
        }
    }
}

/// What the sidecars and kubelet take for "nobody knows", and what was said on this side, of a connection that broke.
fn is_repeated(status: &Status) -> bool {
    let unknown = matches!(
        status.code(),
        Code::Unavailable | Code::Aborted | Code::DeadlineExceeded | Code::Cancelled
    );
    unknown || std::error::Error::source(status).is_some()
}
