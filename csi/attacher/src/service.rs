//! The gRPC service: takes requests apart, hands them to the keeper, and answers in time.

use std::pin::Pin;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::Stream;
use proto::attacher::v1::volume_attacher_server::VolumeAttacher;
use proto::attacher::v1::{
    AttachRequest, AttachResponse, Attachment, DetachMode, DetachRequest, DetachResponse,
    GetRequest, GetResponse, InventoryRequest, InventoryResponse, ListRequest, ListResponse,
    ResizeRequest, ResizeResponse, WatchRequest, WatchResponse,
};
use proto::deadline::Deadline;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

use crate::failure::Failure;
use crate::id::Id;
use crate::keeper::{Call, Keeper};
use crate::{request, watch};

const PAGE: usize = 1000;

type Answer<T> = Result<Response<T>, Status>;

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    keeper: Keeper,
    stop: CancellationToken,
}

impl Service {
    pub(crate) fn new(keeper: Keeper, stop: CancellationToken) -> Self {
        Self { keeper, stop }
    }

    async fn done(
        &self,
        id: &Id,
        call: Call,
        until: Instant,
    ) -> Result<Option<Attachment>, Status> {
        Ok(self.keeper.call(id, call, until).await?)
    }
}

#[tonic::async_trait]
impl VolumeAttacher for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        let until = Deadline::of(request.metadata()).end();
        let request = request.into_inner();
        let id = request::id(request.id, self.keeper.hosts())?;
        let spec = request::spec(request.spec, &id)?;
        let attachment = self.done(&id, Call::Attach(Box::new(spec)), until).await?;
        Ok(Response::new(AttachResponse { attachment }))
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Answer<DetachResponse> {
        let until = Deadline::of(request.metadata()).end();
        let request = request.into_inner();
        let force = request.mode() == DetachMode::Surprise;
        let generation = request.generation;
        let id = request::id(request.id, self.keeper.hosts())?;
        self.done(&id, Call::Detach { force, generation }, until)
            .await?;
        Ok(Response::new(DetachResponse {}))
    }

    async fn resize(&self, request: Request<ResizeRequest>) -> Answer<ResizeResponse> {
        let until = Deadline::of(request.metadata()).end();
        let request = request.into_inner();
        let id = request::id(request.id, self.keeper.hosts())?;
        let attachment = self
            .done(&id, Call::Resize(request.size_bytes), until)
            .await?;
        Ok(Response::new(ResizeResponse { attachment }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Answer<GetResponse> {
        let until = Deadline::of(request.metadata()).end();
        let id = request::id(request.into_inner().id, self.keeper.hosts())?;
        let attachment = within(until, self.keeper.get(&id)).await?;
        Ok(Response::new(GetResponse {
            attachment: Some(attachment),
        }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Answer<ListResponse> {
        let request = request.into_inner();
        if !request.host.is_empty() {
            request::host(&request.host, self.keeper.hosts())?;
        }
        let after = after(&request.page_token)?;
        let most = match request.page_size as usize {
            0 => PAGE,
            asked => asked.min(PAGE),
        };
        let (page, more) = self.keeper.hub().page(&request.host, after.as_ref(), most);
        let last = page.last().filter(|_| more);
        Ok(Response::new(ListResponse {
            next_page_token: last.map(|(id, _)| token(id)).unwrap_or_default(),
            attachments: page.into_iter().map(|(_, attachment)| attachment).collect(),
        }))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        let host = request.into_inner().host;
        if !host.is_empty() {
            request::host(&host, self.keeper.hosts())?;
        }
        let stream = watch::stream(self.keeper.hub().subscribe(), host, self.stop.clone());
        Ok(Response::new(Box::pin(stream)))
    }

    async fn inventory(&self, request: Request<InventoryRequest>) -> Answer<InventoryResponse> {
        let until = Deadline::of(request.metadata()).end();
        let asked = request.into_inner().host;
        let host = match (asked.as_str(), self.keeper.hosts()) {
            ("", [only]) => only.clone(),
            ("", several) => {
                return Err(Status::failed_precondition(format!(
                    "host: is missing, and this card serves {}; name one",
                    several.join(", ")
                )));
            }
            (asked, served) => request::host(asked, served)?,
        };
        let inventory = within(until, self.keeper.inventory(&host)).await?;
        Ok(Response::new(inventory))
    }
}

async fn within<T>(
    until: Instant,
    asked: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Status> {
    match tokio::time::timeout_at(until, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Status::new(
            Code::DeadlineExceeded,
            "the card's service did not answer in time; repeat the call",
        )),
    }
}

/// Where the next page begins: behind `id`.
fn token(id: &Id) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}@{}", id.uuid, id.host))
}

fn after(token: &str) -> Result<Option<Id>, Failure> {
    if token.is_empty() {
        return Ok(None);
    }
    let parsed = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let (uuid, host) = text.split_once('@')?;
        Some(Id {
            host: host.to_owned(),
            uuid: uuid.parse().ok()?,
        })
    };
    let id = parsed().ok_or_else(|| {
        let sentence = "page_token: is not one that this service gave; begin anew without it";
        Failure::new(Code::InvalidArgument, sentence)
    })?;
    Ok(Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_leads_back_and_others_are_refused() {
        let id = Id {
            host: "a@b".to_owned(),
            uuid: uuid::Uuid::from_u128(7),
        };
        assert_eq!(after(&token(&id)).unwrap(), Some(id));
        assert_eq!(after("").unwrap(), None);
        for bad in ["x", "%", "QUJD"] {
            assert_eq!(after(bad).unwrap_err().code, Code::InvalidArgument);
        }
    }
}
