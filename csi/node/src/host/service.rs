//! CSI Node: every call is checked, takes its volume, is given a deadline, logged and counted. The work itself is a task of its own:
//! it goes on if the caller goes away, and the volume is its until it ends.

use std::future::Future;
use std::sync::Arc;

use api::storage::TOPOLOGY;
use daemon::calls::{self, Calls};
use proto::csi::v1::node_server;
use proto::csi::v1::node_service_capability::rpc::Type as Feature;
use proto::csi::v1::node_service_capability::{Rpc, Type};
use proto::csi::v1::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetStorageHealthRequest, NodeGetStorageHealthResponse, NodeGetVolumeHealthRequest,
    NodeGetVolumeHealthResponse, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse,
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability,
    NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, Topology,
};
use proto::deadline::Deadline;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};
use tracing::Instrument;

use super::error::Error;
use super::expand::{self, Expand};
use super::health;
use super::node::Node;
use super::publish::{self, Publish};
use super::request::{self, Volume};
use super::stage::{self, Stage};
use super::stages::{self, Stages};
use super::stats::{self, Stats};
use super::{unpublish, unstage};

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    node: Arc<Node>,
    calls: Calls,
}

/// What a call does with its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Volumes {
    /// Nobody else may at the same time.
    Change,
    /// Looks.
    Look,
}

impl Service {
    /// For this node.
    pub(crate) fn new(node: Arc<Node>, calls: Calls) -> Self {
        Self { node, calls }
    }

    /// One call: `checked` is the volume and the work, or what is wrong with the request.
    async fn call<Work, Done, Out>(
        &self,
        name: &'static str,
        volumes: Volumes,
        deadline: Deadline,
        checked: Result<(Volume, Work), Error>,
    ) -> Result<Response<Out>, Status>
    where
        Work: FnOnce(Arc<Node>) -> Done + Send + 'static,
        Done: Future<Output = Result<Out, Error>> + Send + 'static,
        Out: Send + 'static,
    {
        let began = Instant::now();
        let span = tracing::info_span!("csi", op = name, volume = tracing::field::Empty);
        let mut stages = Stages::default();
        let result = match checked {
            Err(error) => Err(error),
            Ok((volume, work)) => {
                span.record("volume", volume.id.as_str());
                let node = Arc::clone(&self.node);
                let task = async move {
                    let _held = match volumes {
                        Volumes::Change => {
                            let object = format!("volume {}", volume.id);
                            Some(node.locks.lock_for(&object, name, deadline.end()).await?)
                        }
                        Volumes::Look => None,
                    };
                    work(Arc::clone(&node)).await
                };
                let task = tokio::spawn(stages::collect(task).instrument(span.clone()));
                match tokio::time::timeout_at(deadline.end(), task).await {
                    Ok(Ok((result, noted))) => {
                        stages = noted;
                        result
                    }
                    Ok(Err(_)) => Err(Error::Unavailable(format!(
                        "{name} broke off: a fault of this program, whose log says more; repeat"
                    ))),
                    Err(_) => Err(Error::Late(format!(
                        "{name} is not done in the time that was given: the disk or the kernel is slow; it \
                         goes on, repeat later"
                    ))),
                }
            }
        };
        let time = began.elapsed();
        let code = result.as_ref().map_or_else(Error::code, |_| Code::Ok);
        self.calls.count(name, code, time);
        span.in_scope(|| match &result {
            Ok(_) if volumes == Volumes::Change => {
                tracing::info!(%stages, "done in {:.1} ms", time.as_secs_f64() * 1e3);
            }
            Ok(_) => tracing::debug!(?time, "done"),
            Err(error) => tracing::warn!(code = calls::name(code), ?time, "{error}"),
        });
        result.map(Response::new).map_err(Status::from)
    }
}

#[tonic::async_trait]
impl node_server::Node for Service {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        let checked = Stage::new(&self.node, request.get_ref()).map(|ask| {
            let volume = ask.volume.clone();
            (volume, move |node: Arc<Node>| async move {
                stage::stage(&node, &ask, deadline).await?;
                Ok(NodeStageVolumeResponse {})
            })
        });
        self.call("NodeStageVolume", Volumes::Change, deadline, checked)
            .await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        let ask = request.get_ref();
        let checked = Volume::new(&ask.volume_id).and_then(|volume| {
            let staging = request::path("staging_target_path", &ask.staging_target_path)?;
            Ok((volume.clone(), move |node: Arc<Node>| async move {
                unstage::unstage(&node, &volume, &staging, deadline).await?;
                Ok(NodeUnstageVolumeResponse {})
            }))
        });
        self.call("NodeUnstageVolume", Volumes::Change, deadline, checked)
            .await
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        let checked = Publish::new(&self.node, request.into_inner()).map(|ask| {
            let volume = ask.stage.volume.clone();
            (volume, move |node: Arc<Node>| async move {
                publish::publish(&node, &ask, deadline).await?;
                Ok(NodePublishVolumeResponse {})
            })
        });
        self.call("NodePublishVolume", Volumes::Change, deadline, checked)
            .await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        let ask = request.get_ref();
        let checked = Volume::new(&ask.volume_id).and_then(|volume| {
            let target = request::path("target_path", &ask.target_path)?;
            Ok((volume.clone(), move |node: Arc<Node>| async move {
                unpublish::unpublish(&node, &volume, &target).await?;
                Ok(NodeUnpublishVolumeResponse {})
            }))
        });
        self.call("NodeUnpublishVolume", Volumes::Change, deadline, checked)
            .await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        let checked = Stats::new(request.get_ref()).map(|ask| {
            let volume = ask.volume.clone();
            (volume, move |node: Arc<Node>| async move {
                stats::stats(&node, &ask).await
            })
        });
        self.call("NodeGetVolumeStats", Volumes::Look, deadline, checked)
            .await
    }

    async fn node_get_volume_health(
        &self,
        request: Request<NodeGetVolumeHealthRequest>,
    ) -> Result<Response<NodeGetVolumeHealthResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        let checked = health::Ask::new(request.get_ref()).map(|ask| {
            let volume = ask.volume.clone();
            (volume, move |node: Arc<Node>| async move {
                health::health(&node, &ask).await
            })
        });
        self.call("NodeGetVolumeHealth", Volumes::Look, deadline, checked)
            .await
    }

    /// Not announced (GET_STORAGE_HEALTH): a host knows disks, and nothing of the storage behind them.
    async fn node_get_storage_health(
        &self,
        _: Request<NodeGetStorageHealthRequest>,
    ) -> Result<Response<NodeGetStorageHealthResponse>, Status> {
        Err(Status::unimplemented(
            "NodeGetStorageHealth is not announced (GET_STORAGE_HEALTH); ask NodeGetVolumeHealth for a volume",
        ))
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        let checked = Expand::new(request.get_ref()).map(|ask| {
            let volume = ask.volume.clone();
            (volume, move |node: Arc<Node>| async move {
                let bytes = expand::expand(&node, &ask, deadline).await?;
                let capacity_bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
                Ok(NodeExpandVolumeResponse { capacity_bytes })
            })
        });
        self.call("NodeExpandVolume", Volumes::Change, deadline, checked)
            .await
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let features = [
            Feature::StageUnstageVolume,
            Feature::GetVolumeStats,
            Feature::ExpandVolume,
            Feature::GetVolumeHealth,
            Feature::SingleNodeMultiWriter,
        ];
        let capabilities = features.map(|feature| NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc {
                r#type: feature.into(),
            })),
        });
        Ok(Response::new(NodeGetCapabilitiesResponse {
            capabilities: capabilities.into(),
        }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        let node = &self.node;
        Ok(Response::new(NodeGetInfoResponse {
            node_id: node.name.clone(),
            max_volumes_per_node: node.max_volumes,
            accessible_topology: Some(Topology {
                segments: [(TOPOLOGY.to_owned(), node.name.clone())].into(),
            }),
        }))
    }
}
