//! What csi-controller may ask.

use std::collections::BTreeMap;

use proto::attacher::v1::{
    self as attacher, AttachmentId, AttachmentSpec, DetachMode, InventoryResponse,
};
use proto::deadline::Deadline;
use proto::node::v1::host_volumes_server::HostVolumes;
use proto::node::v1::{
    AttachRequest, AttachResponse, CapacityRequest, CapacityResponse, DetachRequest,
    DetachResponse, HealthRequest, HealthResponse, ListRequest, ListResponse, ResizeRequest,
    ResizeResponse, Volume,
};
use proto::volume::v1::{Exposure, ExposureKind, VhostUserBlk};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use super::attacher::Attacher;
use super::caller::{self, Names};
use super::exposure;
use super::metrics::Metrics;

/// The label under which the CSI volume id is kept.
const VOLUME_ID: &str = "csi-volume-id";
const OWNER: (&str, &str) = ("owner", "csi");

type Answer<T> = Result<Response<T>, Status>;

/// The service for csi-controller. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Controller {
    pub(crate) names: Names,
    pub(crate) attacher: Attacher,
    pub(crate) metrics: Metrics,
}

impl Controller {
    fn served(&self, id: Option<AttachmentId>) -> Result<AttachmentId, Status> {
        let id = id.ok_or_else(|| Status::invalid_argument("id: is missing"))?;
        self.serves(&id.host)?;
        Ok(id)
    }

    fn serves(&self, host: &str) -> Result<(), Status> {
        if host.is_empty() {
            return Err(Status::invalid_argument("host: is missing"));
        }
        if self.names.serves(host) {
            return Ok(());
        }
        Err(Status::not_found(format!(
            "host {host}: this csi-node-dpu serves {}; ask the one of that host, or give it --serves-node {host}",
            self.names.served()
        )))
    }

    /// As it is attached already, if that is acceptable; else the first that the card can do.
    async fn exposure(
        &self,
        id: &AttachmentId,
        acceptable: &[ExposureKind],
        socket: Option<VhostUserBlk>,
        until: Instant,
    ) -> Result<Exposure, Status> {
        match self.attacher.get(id.clone(), until).await {
            Ok(found) => {
                let present = found.spec.and_then(|spec| spec.exposure);
                let kind = exposure::kind(present);
                if let Some(present) = present
                    && (acceptable.is_empty() || acceptable.contains(&kind))
                    && exposure::socket(present) == socket
                {
                    return Ok(present);
                }
            }
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(status),
        }
        let card: InventoryResponse = self.attacher.inventory(&id.host, until).await?;
        let names = |kinds: &mut dyn Iterator<Item = ExposureKind>| {
            kinds
                .map(|kind| kind.as_str_name())
                .collect::<Vec<_>>()
                .join(", ")
        };
        if let Some(socket) = socket {
            let chosen = exposure::with_socket(acceptable, socket, &card.functions);
            return chosen.ok_or_else(|| {
                Status::failed_precondition(format!(
                    "host {}: card {} can do {}, and a vhost-user-blk socket beside a block device needs {}; use a StorageClass \
                     without vhostUserBlk, or another node",
                    id.host,
                    card.card,
                    names(&mut card.functions.iter().map(|count| count.kind())),
                    names(&mut [ExposureKind::LocalBlockDevice, ExposureKind::VhostUserBlk].into_iter()),
                ))
            });
        }
        let chosen = exposure::choose(acceptable, &card.functions);
        chosen.map(exposure::of).ok_or_else(|| {
            Status::unimplemented(format!(
                "host {}: card {} can do {}; acceptable were {}",
                id.host,
                card.card,
                names(&mut card.functions.iter().map(|count| count.kind())),
                if acceptable.is_empty() {
                    "any but vhost-user-blk".to_owned()
                } else {
                    names(&mut acceptable.iter().copied())
                },
            ))
        })
    }

    async fn attach(
        &self,
        request: AttachRequest,
        until: Instant,
    ) -> Result<AttachResponse, Status> {
        let acceptable: Vec<ExposureKind> = request.acceptable().collect();
        if acceptable.contains(&ExposureKind::Unspecified) {
            return Err(Status::invalid_argument(
                "acceptable: has a kind of exposure that is not known here",
            ));
        }
        let id = self.served(request.id)?;
        let exposure = self
            .exposure(&id, &acceptable, request.socket, until)
            .await?;
        let labels = [
            (OWNER.0.to_owned(), OWNER.1.to_owned()),
            (VOLUME_ID.to_owned(), request.volume_id),
        ];
        let spec = AttachmentSpec {
            source: request.source,
            exposure: Some(exposure),
            read_only: request.read_only,
            size_bytes: request.size_bytes,
            serial: request.serial,
            limits: request.limits,
            labels: BTreeMap::from(labels),
        };
        let request = attacher::AttachRequest {
            id: Some(id),
            spec: Some(spec),
        };
        let done = self
            .attacher
            .call(request, until, async |mut c, r| c.attach(r).await)
            .await?;
        let attachment = done.attachment.unwrap_or_default();
        Ok(AttachResponse {
            device: attachment.device,
            generation: attachment.generation,
            epoch: attachment.epoch,
        })
    }

    async fn detach(
        &self,
        request: DetachRequest,
        until: Instant,
    ) -> Result<DetachResponse, Status> {
        match self.served(request.id.clone()) {
            // Nothing of a host that is not served is here.
            Err(status) if status.code() == Code::NotFound => return Ok(DetachResponse {}),
            other => other?,
        };
        let mode = if request.force {
            DetachMode::Surprise
        } else {
            DetachMode::Clean
        };
        let request = attacher::DetachRequest {
            id: request.id,
            mode: mode.into(),
            generation: request.generation,
        };
        self.attacher
            .call(request, until, async |mut c, r| c.detach(r).await)
            .await?;
        Ok(DetachResponse {})
    }

    async fn resize(
        &self,
        request: ResizeRequest,
        until: Instant,
    ) -> Result<ResizeResponse, Status> {
        let request = attacher::ResizeRequest {
            id: Some(self.served(request.id)?),
            size_bytes: request.size_bytes,
        };
        let done = self
            .attacher
            .call(request, until, async |mut c, r| c.resize(r).await)
            .await?;
        Ok(ResizeResponse {
            device: done.attachment.and_then(|attachment| attachment.device),
        })
    }

    /// Of one host, or of all: those that other programs attached (bare metal) are none of csi-controller's.
    async fn list(&self, request: ListRequest, until: Instant) -> Result<ListResponse, Status> {
        if !request.host.is_empty() {
            self.serves(&request.host)?;
        }
        let request = attacher::ListRequest {
            host: request.host,
            page_size: request.page_size,
            page_token: request.page_token,
        };
        let page = self
            .attacher
            .call(request, until, async |mut c, r| c.list(r).await)
            .await?;
        let volumes = page.attachments.into_iter().filter(is_csi);
        let volumes = volumes.map(volume).filter(|volume| {
            volume
                .id
                .as_ref()
                .is_some_and(|id| self.names.serves(&id.host))
        });
        Ok(ListResponse {
            volumes: volumes.collect(),
            next_page_token: page.next_page_token,
        })
    }
}

/// True for what csi-controller attached.
pub(super) fn is_csi(attachment: &attacher::Attachment) -> bool {
    let labels = attachment.spec.as_ref().map(|spec| &spec.labels);
    labels
        .and_then(|labels| labels.get(OWNER.0))
        .is_some_and(|owner| owner == OWNER.1)
}

/// An attachment in this interface's words.
pub(super) fn volume(attachment: attacher::Attachment) -> Volume {
    let labels = attachment.spec.map(|spec| spec.labels).unwrap_or_default();
    Volume {
        id: attachment.id,
        volume_id: labels.get(VOLUME_ID).cloned().unwrap_or_default(),
        state: attachment.state,
        message: attachment.message,
        device: attachment.device,
        generation: attachment.generation,
        epoch: attachment.epoch,
    }
}

fn of(id: Option<&AttachmentId>) -> String {
    id.map(|id| format!("{}@{}", id.volume_uuid, id.host))
        .unwrap_or_default()
}

#[tonic::async_trait]
impl HostVolumes for Controller {
    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        caller::controller(&request)?;
        let until = Deadline::of(request.metadata()).end();
        let request = request.into_inner();
        let of = of(request.id.as_ref());
        self.metrics
            .counted("Attach", &of, self.attach(request, until))
            .await
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Answer<DetachResponse> {
        caller::controller(&request)?;
        let until = Deadline::of(request.metadata()).end();
        let request = request.into_inner();
        let of = of(request.id.as_ref());
        self.metrics
            .counted("Detach", &of, self.detach(request, until))
            .await
    }

    async fn resize(&self, request: Request<ResizeRequest>) -> Answer<ResizeResponse> {
        caller::controller(&request)?;
        let until = Deadline::of(request.metadata()).end();
        let request = request.into_inner();
        let of = of(request.id.as_ref());
        self.metrics
            .counted("Resize", &of, self.resize(request, until))
            .await
    }

    async fn health(&self, request: Request<HealthRequest>) -> Answer<HealthResponse> {
        caller::controller(&request)?;
        let until = Deadline::of(request.metadata()).end();
        let id = request.into_inner().id;
        let of = of(id.as_ref());
        let health = async {
            let attachment = self.attacher.get(self.served(id)?, until).await?;
            Ok(HealthResponse {
                volume: Some(volume(attachment)),
            })
        };
        self.metrics.counted("Health", &of, health).await
    }

    async fn list(&self, request: Request<ListRequest>) -> Answer<ListResponse> {
        caller::controller(&request)?;
        let until = Deadline::of(request.metadata()).end();
        let request = request.into_inner();
        let host = request.host.clone();
        self.metrics
            .counted("List", &host, self.list(request, until))
            .await
    }

    async fn capacity(&self, request: Request<CapacityRequest>) -> Answer<CapacityResponse> {
        caller::controller(&request)?;
        let until = Deadline::of(request.metadata()).end();
        let host = request.into_inner().host;
        let capacity = async {
            self.serves(&host)?;
            let functions = self.attacher.inventory(&host, until).await?.functions;
            Ok(CapacityResponse { functions })
        };
        self.metrics.counted("Capacity", &host, capacity).await
    }
}
