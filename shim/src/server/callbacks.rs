//! The same callbacks in the three versions of their interface.

use proto::kubevirt::hooks::{v1alpha1, v1alpha2, v1alpha3};
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status};

use super::Hooks;
use crate::cloud_init::Data;

/// Adds all three.
pub(super) fn add(mut server: Server, hooks: &Hooks) -> Router {
    server
        .add_service(v1alpha1::callbacks_server::CallbacksServer::new(
            hooks.clone(),
        ))
        .add_service(v1alpha2::callbacks_server::CallbacksServer::new(
            hooks.clone(),
        ))
        .add_service(v1alpha3::callbacks_server::CallbacksServer::new(
            hooks.clone(),
        ))
}

#[tonic::async_trait]
impl v1alpha1::callbacks_server::Callbacks for Hooks {
    async fn on_define_domain(
        &self,
        request: Request<v1alpha1::OnDefineDomainParams>,
    ) -> Result<Response<v1alpha1::OnDefineDomainResult>, Status> {
        let (from, _, sent) = request.into_parts();
        let domain_xml = self.define(from, &sent.domain_xml, &sent.vmi).await?;
        Ok(Response::new(v1alpha1::OnDefineDomainResult { domain_xml }))
    }
}

#[tonic::async_trait]
impl v1alpha2::callbacks_server::Callbacks for Hooks {
    async fn on_define_domain(
        &self,
        request: Request<v1alpha2::OnDefineDomainParams>,
    ) -> Result<Response<v1alpha2::OnDefineDomainResult>, Status> {
        let (from, _, sent) = request.into_parts();
        let domain_xml = self.define(from, &sent.domain_xml, &sent.vmi).await?;
        Ok(Response::new(v1alpha2::OnDefineDomainResult { domain_xml }))
    }

    async fn pre_cloud_init_iso(
        &self,
        request: Request<v1alpha2::PreCloudInitIsoParams>,
    ) -> Result<Response<v1alpha2::PreCloudInitIsoResult>, Status> {
        let (from, _, sent) = request.into_parts();
        let data = Data {
            data: sent.cloud_init_data,
            no_cloud: sent.cloud_init_no_cloud_source,
        };
        let told = self.tell(from, data, &sent.vmi).await?;
        Ok(Response::new(v1alpha2::PreCloudInitIsoResult {
            cloud_init_no_cloud_source: told.no_cloud,
            cloud_init_data: told.data,
        }))
    }
}

#[tonic::async_trait]
impl v1alpha3::callbacks_server::Callbacks for Hooks {
    async fn on_define_domain(
        &self,
        request: Request<v1alpha3::OnDefineDomainParams>,
    ) -> Result<Response<v1alpha3::OnDefineDomainResult>, Status> {
        let (from, _, sent) = request.into_parts();
        let domain_xml = self.define(from, &sent.domain_xml, &sent.vmi).await?;
        Ok(Response::new(v1alpha3::OnDefineDomainResult { domain_xml }))
    }

    async fn pre_cloud_init_iso(
        &self,
        request: Request<v1alpha3::PreCloudInitIsoParams>,
    ) -> Result<Response<v1alpha3::PreCloudInitIsoResult>, Status> {
        let (from, _, sent) = request.into_parts();
        let data = Data {
            data: sent.cloud_init_data,
            no_cloud: sent.cloud_init_no_cloud_source,
        };
        let told = self.tell(from, data, &sent.vmi).await?;
        Ok(Response::new(v1alpha3::PreCloudInitIsoResult {
            cloud_init_no_cloud_source: told.no_cloud,
            cloud_init_data: told.data,
        }))
    }

    async fn shutdown(
        &self,
        _: Request<v1alpha3::ShutdownParams>,
    ) -> Result<Response<v1alpha3::ShutdownResult>, Status> {
        self.0.ended.cancel();
        Ok(Response::new(v1alpha3::ShutdownResult {}))
    }
}
