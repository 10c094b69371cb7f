//! What a host may ask, about itself alone.

use proto::attacher::v1::{AttachRequest, Attachment, AttachmentId, State};
use proto::deadline::Deadline;
use proto::node::v1::host_agent_server::HostAgent;
use proto::node::v1::{DescribeRequest, DescribeResponse, RepairRequest, RepairResponse};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use super::attacher::Attacher;
use super::caller;
use super::controller::{is_csi, volume};
use super::metrics::Metrics;

type Answer<T> = Result<Response<T>, Status>;

/// The service for csi-node-host. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    pub(crate) attacher: Attacher,
    pub(crate) metrics: Metrics,
}

impl Agent {
    async fn describe(
        &self,
        host: &str,
        request: &DescribeRequest,
        until: Instant,
    ) -> Result<DescribeResponse, Status> {
        let (all, card) = tokio::try_join!(
            self.attacher.all(host, until),
            self.attacher.inventory(host, until)
        )?;
        let asked = |attachment: &Attachment| {
            let uuid = attachment.id.as_ref().map(|id| id.volume_uuid.as_str());
            request.volume_uuid.is_empty() || uuid == Some(request.volume_uuid.as_str())
        };
        let volumes = all.into_iter().filter(is_csi).filter(asked).map(volume);
        Ok(DescribeResponse {
            host: host.to_owned(),
            functions: card.functions,
            volumes: volumes.collect(),
            epoch: card.epoch,
        })
    }

    /// What is attached to this host, and nothing else, is attached again just as it was.
    async fn repair(
        &self,
        host: &str,
        request: RepairRequest,
        until: Instant,
    ) -> Result<RepairResponse, Status> {
        let id = AttachmentId {
            host: host.to_owned(),
            volume_uuid: request.volume_uuid.clone(),
        };
        let absent = || {
            Status::not_found(format!(
                "volume {}: is not attached to {host}: ControllerPublishVolume has not happened or was undone; only csi-controller can repair that",
                request.volume_uuid
            ))
        };
        let present = match self.attacher.get(id.clone(), until).await {
            Err(status) if status.code() == Code::NotFound => return Err(absent()),
            other => other?,
        };
        if present.state() == State::Detaching || !is_csi(&present) {
            return Err(absent());
        }
        tracing::info!(
            host,
            volume = request.volume_uuid,
            symptom = request.symptom().as_str_name(),
            state = present.state().as_str_name(),
            "the host asks for a repair"
        );
        // As it is, if nothing is wrong: then this changes nothing.
        let request = AttachRequest {
            id: Some(id),
            spec: present.spec,
        };
        let done = self
            .attacher
            .call(request, until, async |mut c, r| c.attach(r).await)
            .await?;
        Ok(RepairResponse {
            volume: done.attachment.map(volume),
        })
    }
}

#[tonic::async_trait]
impl HostAgent for Agent {
    async fn describe(&self, request: Request<DescribeRequest>) -> Answer<DescribeResponse> {
        let host = caller::host(&request)?;
        let until = Deadline::of(request.metadata()).end();
        let request = request.into_inner();
        self.metrics
            .counted("Describe", &host, self.describe(&host, &request, until))
            .await
    }

    async fn repair(&self, request: Request<RepairRequest>) -> Answer<RepairResponse> {
        let host = caller::host(&request)?;
        let until = Deadline::of(request.metadata()).end();
        let request = request.into_inner();
        let of = format!("{}@{host}", request.volume_uuid);
        self.metrics
            .counted("Repair", &of, self.repair(&host, request, until))
            .await
    }
}
