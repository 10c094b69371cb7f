//! The calls of gRPC: who may, and what they look like.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use mtls::Peer;
use proto::deadline::Deadline;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status, Streaming};

use super::call::{Asked, Attach};
use super::desk::{Desk, name};
use super::session;
use crate::code::REFUSED;
use crate::heartbeat::DEAD;
use crate::proto::channel_server::Channel;
use crate::proto::session_request::Message as FromHost;
use crate::proto::{
    AttachProgress, AttachRequest, AttachmentKey, CheckRequest, CheckResponse, DetachRequest,
    DetachResponse, Hello, Reason, SessionRequest, SessionResponse,
};
use crate::{Failure, shape};

/// What tonic serves.
pub(crate) struct Service(pub(crate) Arc<Desk>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Channel for Service {
    type SessionStream = Answers<SessionResponse>;
    type AttachStream = Answers<AttachProgress>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let desk = &self.0;
        let peer = peer(&request)?;
        // Before anything is read.
        desk.host(&peer)?;
        let mut from = request.into_inner();
        let hello = tokio::time::timeout(DEAD, self.hello(&peer, &mut from)).await;
        let hello =
            hello.map_err(|_| Status::deadline_exceeded(format!("no Hello within {DEAD:?}")))??;
        let Some(version) = desk.dialect.common(hello.version) else {
            return Err(self.no_common_version(&peer, hello.version));
        };
        let current = desk.begin(&peer, &hello)?;
        let answers = session::start(desk, current, &hello, version, from);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn attach(
        &self,
        request: Request<AttachRequest>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (peer, deadline) = (peer(&request)?, Deadline::of(request.metadata()).end());
        let AttachRequest {
            session,
            attachment,
        } = request.into_inner();
        let asked = Asked::of(&self.0, &peer, &session, deadline)?;
        let attachment = attachment.unwrap_or_default();
        self.shaped(&peer, shape::attachment(&attachment))?;
        let key = attachment.key.clone().unwrap_or_default();
        let attach = Attach {
            asked,
            attachment,
            key,
        };
        Ok(Response::new(Box::pin(attach.start())))
    }

    async fn detach(
        &self,
        request: Request<DetachRequest>,
    ) -> Result<Response<DetachResponse>, Status> {
        let (peer, deadline) = (peer(&request)?, Deadline::of(request.metadata()).end());
        let DetachRequest {
            session,
            key,
            attempt,
        } = request.into_inner();
        let (asked, key) = self.about(&peer, &session, deadline, key, attempt)?;
        asked.detach(key, attempt).await?;
        Ok(Response::new(DetachResponse {}))
    }

    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let (peer, deadline) = (peer(&request)?, Deadline::of(request.metadata()).end());
        let CheckRequest {
            session,
            key,
            attempt,
        } = request.into_inner();
        let (asked, key) = self.about(&peer, &session, deadline, key, attempt)?;
        let wiring = Some(asked.check(key, attempt).await?);
        Ok(Response::new(CheckResponse { wiring }))
    }
}

impl Service {
    /// A call about an attachment that was made before.
    #[allow(clippy::result_large_err, reason = "an answer")]
    fn about(
        &self,
        peer: &Peer,
        session: &str,
        deadline: Instant,
        key: Option<AttachmentKey>,
        attempt: u64,
    ) -> Result<(Asked, AttachmentKey), Status> {
        let asked = Asked::of(&self.0, peer, session, deadline)?;
        let key = key.unwrap_or_default();
        self.shaped(peer, shape::key(&key))?;
        self.shaped(peer, shape::attempt(attempt))?;
        Ok((asked, key))
    }

    /// The first message.
    async fn hello(
        &self,
        peer: &Peer,
        from: &mut Streaming<SessionRequest>,
    ) -> Result<Hello, Status> {
        let first = from.message().await?.and_then(|first| first.message);
        let Some(FromHost::Hello(hello)) = first else {
            return Err(Status::invalid_argument("the first message is not Hello"));
        };
        self.shaped(peer, shape::hello(&hello))?;
        Ok(hello)
    }

    fn no_common_version(&self, peer: &Peer, theirs: u32) -> Status {
        let desk = &self.0;
        let cause = format!(
            "host {} speaks version {theirs} of the channel, DPU {} speaks {}",
            name(peer),
            desk.node,
            desk.dialect.spoken()
        );
        desk.refusals.refuse("version", name(peer), cause.clone());
        let remedy = "bring host and DPU to the same or to neighbouring releases";
        Failure::new(Reason::Unspecified, REFUSED, cause, remedy).status(Code::FailedPrecondition)
    }

    #[allow(clippy::result_large_err, reason = "an answer")]
    fn shaped(&self, peer: &Peer, shaped: Result<(), Failure>) -> Result<(), Status> {
        shaped.map_err(|failure| {
            let refusals = &self.0.refusals;
            refusals.refuse("malformed", name(peer), failure.cause.clone());
            failure.into()
        })
    }
}

#[allow(clippy::result_large_err, reason = "an answer")]
fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    let peer = request.extensions().get::<Peer>();
    peer.cloned()
        .ok_or_else(|| Status::permission_denied("a client certificate is needed"))
}
