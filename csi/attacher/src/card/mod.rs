//! The card's service, opi-bridge: one channel for OPI and for its complement.
//!
//! [`observe`] reads what the card has of one attachment, [`apply`] does one step, [`orphans`] lists what is ours.

mod apply;
mod observe;
mod orphans;

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use proto::card::v1::card_client::CardClient;
use proto::card::v1::{Event, InventoryRequest, InventoryResponse, WatchRequest};
use proto::opi::storage::v1::frontend_nvme_service_client::FrontendNvmeServiceClient;
use proto::opi::storage::v1::frontend_virtio_blk_service_client::FrontendVirtioBlkServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::failure::Failure;

/// The most that one call may take. Longer work goes on in the bridge, and is asked for again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Cheap to clone. It connects at the first call, and again after every loss.
#[derive(Debug, Clone)]
pub(crate) struct Card {
    card: CardClient<Channel>,
    nvme: FrontendNvmeServiceClient<Channel>,
    blk: FrontendVirtioBlkServiceClient<Channel>,
}

impl Card {
    /// The bridge that listens at `socket`.
    pub(crate) fn new(socket: PathBuf) -> Self {
        let channel = proto::uds::channel(socket);
        Self {
            card: CardClient::new(channel.clone()),
            nvme: FrontendNvmeServiceClient::new(channel.clone()),
            blk: FrontendVirtioBlkServiceClient::new(channel),
        }
    }

    /// What it can do, and its functions.
    pub(crate) async fn inventory(&self) -> Result<InventoryResponse, Failure> {
        let mut card = self.card.clone();
        call(
            "reading the card's inventory",
            InventoryRequest {},
            |r| async move { card.inventory(r).await },
        )
        .await
    }

    /// What happens from now on.
    pub(crate) async fn watch(&self) -> Result<Streaming<Event>, Failure> {
        let mut card = self.card.clone();
        let watching = card.watch(WatchRequest {});
        let failed = |status: &Status| Failure::of_card("watching the card", status);
        match tokio::time::timeout(PATIENCE, watching).await {
            Ok(stream) => Ok(stream.map_err(|status| failed(&status))?.into_inner()),
            Err(_) => Err(failed(&Status::deadline_exceeded("no stream in time"))),
        }
    }
}

/// One call, `step` for the sentence. It ends in time whatever the server does.
async fn call<Q, A, F>(
    step: &str,
    question: Q,
    ask: impl FnOnce(Request<Q>) -> F,
) -> Result<A, Failure>
where
    F: Future<Output = Result<Response<A>, Status>>,
{
    let mut request = Request::new(question);
    request.set_timeout(PATIENCE);
    let answer = tokio::time::timeout(PATIENCE, ask(request)).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
    answer
        .map(Response::into_inner)
        .map_err(|status| Failure::of_card(step, &status))
}

/// NOT_FOUND is an answer, too.
fn found<T>(answer: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(failure) if failure.code == Code::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The full names of an attachment's objects.
pub(crate) mod name {
    pub(crate) fn source(id: &str) -> String {
        format!("sources/{id}")
    }

    pub(crate) fn local_device(id: &str) -> String {
        format!("localDevices/{id}")
    }

    pub(crate) fn subsystem(id: &str) -> String {
        format!("nvmeSubsystems/{id}")
    }

    pub(crate) fn namespace(id: &str) -> String {
        format!("nvmeSubsystems/{id}/nvmeNamespaces/{id}")
    }

    pub(crate) fn controller(id: &str) -> String {
        format!("nvmeSubsystems/{id}/nvmeControllers/{id}")
    }

    pub(crate) fn virtio_blk(id: &str) -> String {
        format!("virtioBlks/{id}")
    }
}
