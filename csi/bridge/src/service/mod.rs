//! The wire: gRPC services on the bridge.

mod card;
mod opi;
mod remote;

use std::future::Future;
use std::sync::Arc;

use daemon::calls::Calls;
use prost::Message;
use proto::card::v1::card_server::CardServer;
use proto::deadline::Deadline;
use proto::opi::storage::v1::aio_volume_service_server::AioVolumeServiceServer;
use proto::opi::storage::v1::frontend_nvme_service_server::FrontendNvmeServiceServer;
use proto::opi::storage::v1::frontend_virtio_blk_service_server::FrontendVirtioBlkServiceServer;
use proto::opi::storage::v1::malloc_volume_service_server::MallocVolumeServiceServer;
use proto::opi::storage::v1::middleend_encryption_service_server::MiddleendEncryptionServiceServer;
use proto::opi::storage::v1::middleend_qos_volume_service_server::MiddleendQosVolumeServiceServer;
use proto::opi::storage::v1::null_volume_service_server::NullVolumeServiceServer;
use proto::opi::storage::v1::nvme_remote_controller_service_server::NvmeRemoteControllerServiceServer;
use tokio::time::Instant;
use tonic::transport::server::Router;
use tonic::{Code, Request, Response, Status};
use tracing::Instrument;

use crate::bridge::Bridge;
use crate::card::Result;

/// Every service.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) bridge: Arc<Bridge>,
    pub(crate) calls: Calls,
}

impl Services {
    /// The services on a server.
    pub(crate) fn on(self, mut server: tonic::transport::Server) -> Router {
        server
            .add_service(CardServer::new(self.clone()))
            .add_service(FrontendNvmeServiceServer::new(self.clone()))
            .add_service(FrontendVirtioBlkServiceServer::new(self.clone()))
            .add_service(AioVolumeServiceServer::new(self.clone()))
            .add_service(NullVolumeServiceServer::new(self.clone()))
            .add_service(MallocVolumeServiceServer::new(self.clone()))
            .add_service(MiddleendQosVolumeServiceServer::new(self.clone()))
            .add_service(MiddleendEncryptionServiceServer::new(self.clone()))
            .add_service(NvmeRemoteControllerServiceServer::new(self))
    }

    /// A call that changes something: one at a time for `object`, joined by equal ones.
    async fn change<Q, A, W>(
        &self,
        method: &'static str,
        object: String,
        request: Request<Q>,
        work: impl FnOnce(Arc<Bridge>, Q) -> W,
    ) -> std::result::Result<Response<A>, Status>
    where
        Q: Message,
        A: Message + Default + 'static,
        W: Future<Output = Result<A>> + Send + 'static,
    {
        let deadline = Deadline::of(request.metadata()).end();
        let request = request.into_inner();
        let bytes = request.encode_to_vec();
        let span = tracing::info_span!("call", op = method, object = %object);
        let work = work(Arc::clone(&self.bridge), request).instrument(span.clone());
        let calls = &self.bridge.calls;
        let call = calls.run(&object, method, bytes, deadline, work);
        self.answer(method, true, call).instrument(span).await
    }

    /// A call that changes nothing.
    async fn read<Q, A, W>(
        &self,
        method: &'static str,
        object: String,
        request: Request<Q>,
        work: impl FnOnce(Arc<Bridge>, Q) -> W,
    ) -> std::result::Result<Response<A>, Status>
    where
        W: Future<Output = Result<A>> + Send,
    {
        let deadline = Deadline::of(request.metadata()).end();
        let span = tracing::info_span!("call", op = method, object = %object);
        let work = work(Arc::clone(&self.bridge), request.into_inner());
        let call = async move {
            let answer = tokio::time::timeout_at(deadline, work).await;
            answer.unwrap_or_else(|_| {
                Err(crate::card::Error::Late(format!(
                    "{method}: no answer in time"
                )))
            })
        };
        self.answer(method, false, call).instrument(span).await
    }

    async fn answer<A>(
        &self,
        method: &'static str,
        changes: bool,
        call: impl Future<Output = Result<A>>,
    ) -> std::result::Result<Response<A>, Status> {
        let begun = Instant::now();
        let result = call.await;
        let code = result
            .as_ref()
            .err()
            .map_or(Code::Ok, crate::card::Error::code);
        self.calls.count(method, code, begun.elapsed());
        let ms = begun.elapsed().as_millis();
        match &result {
            Ok(_) if changes => tracing::info!(ms, "done"),
            Ok(_) => tracing::debug!(ms, "done"),
            // Who looks whether there is one has its answer.
            Err(why) if !changes && code == Code::NotFound => tracing::debug!(ms, ?code, "{why}"),
            Err(why) => tracing::warn!(ms, ?code, "refused: {why}"),
        }
        Ok(Response::new(result?))
    }
}
