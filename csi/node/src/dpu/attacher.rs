//! volume-attacher, over its socket.

use std::path::PathBuf;
use std::time::Duration;

use daemon::readiness::Check;
use proto::attacher::v1::volume_attacher_client::VolumeAttacherClient;
use proto::attacher::v1::{
    Attachment, AttachmentId, GetRequest, InventoryRequest, InventoryResponse, ListRequest,
    WatchRequest, watch_response,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

const PAUSE: Duration = Duration::from_millis(500);

/// Cheap to clone. It connects at the first call, and again after every loss.
#[derive(Debug, Clone)]
pub(crate) struct Attacher {
    client: VolumeAttacherClient<Channel>,
    socket: PathBuf,
}

impl Attacher {
    pub(crate) fn new(socket: PathBuf) -> Self {
        let client = VolumeAttacherClient::new(proto::uds::channel(socket.clone()));
        Self { client, socket }
    }

    /// One call with what is left of the caller's time.
    pub(crate) async fn call<Q, A, F>(
        &self,
        question: Q,
        until: Instant,
        ask: impl FnOnce(VolumeAttacherClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, Status>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut request = Request::new(question);
        request.set_timeout(until.saturating_duration_since(Instant::now()));
        match tokio::time::timeout_at(until, ask(self.client.clone(), request)).await {
            Ok(answer) => answer
                .map(Response::into_inner)
                .map_err(|status| self.told(&status)),
            Err(_) => Err(Status::deadline_exceeded(
                "volume-attacher did not answer in time; the work goes on, repeat the call",
            )),
        }
    }

    /// What has a code of the contract is passed on; what the connection says is put into words.
    fn told(&self, status: &Status) -> Status {
        use std::error::Error as _;
        match status.code() {
            // A status with a source was made on this side, not by the server.
            Code::Unavailable | Code::Unknown | Code::Cancelled if status.source().is_some() => {
                Status::unavailable(format!(
                    "volume-attacher at {} is not reached ({}): is it running? repeat the call",
                    self.socket.display(),
                    status.message()
                ))
            }
            code => Status::new(code, status.message()),
        }
    }

    pub(crate) async fn get(&self, id: AttachmentId, until: Instant) -> Result<Attachment, Status> {
        let request = GetRequest { id: Some(id) };
        let got = self
            .call(request, until, async |mut c, r| c.get(r).await)
            .await?;
        got.attachment
            .ok_or_else(|| Status::internal("volume-attacher answered without an attachment"))
    }

    pub(crate) async fn inventory(
        &self,
        host: &str,
        until: Instant,
    ) -> Result<InventoryResponse, Status> {
        let host = host.to_owned();
        let request = InventoryRequest { host };
        self.call(request, until, async |mut c, r| c.inventory(r).await)
            .await
    }

    /// Every attachment of `host`.
    pub(crate) async fn all(&self, host: &str, until: Instant) -> Result<Vec<Attachment>, Status> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListRequest {
                host: host.to_owned(),
                page_token,
                ..ListRequest::default()
            };
            let page = self
                .call(request, until, async |mut c, r| c.list(r).await)
                .await?;
            all.extend(page.attachments);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Keeps `check` true, by a watch: it ends when volume-attacher does.
    pub(crate) async fn follow(self, check: Check, stop: CancellationToken) {
        loop {
            let why = tokio::select! {
                why = self.session(&check) => why,
                () = stop.cancelled() => return,
            };
            check.not_ready(why.message());
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn session(&self, check: &Check) -> Status {
        let mut client = self.client.clone();
        let mut events = match client.watch(WatchRequest::default()).await {
            Ok(events) => events.into_inner(),
            Err(status) => return self.told(&status),
        };
        loop {
            match events.message().await {
                Ok(Some(event)) => {
                    if let Some(watch_response::Event::Synced(_)) = event.event {
                        check.ready();
                    }
                }
                Ok(None) => return Status::unavailable("volume-attacher ended the watch"),
                Err(status) => return self.told(&status),
            }
        }
    }
}
