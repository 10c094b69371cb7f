//! CSI Identity: which plugin this is. It describes the whole plugin, csi-controller included: that is what the caller of a
//! node's socket wants to know, too.

use api::storage::DRIVER;
use proto::csi::v1::identity_server::Identity;
use proto::csi::v1::plugin_capability::service::Type as Service;
use proto::csi::v1::plugin_capability::volume_expansion::Type as Expansion;
use proto::csi::v1::plugin_capability::{self, Type};
use proto::csi::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, PluginCapability, ProbeRequest, ProbeResponse,
};
use tonic::{Request, Response, Status};

use super::child;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Plugin;

/// The programs that are not installed on this node, as a sentence.
pub(crate) fn complaint() -> Result<(), String> {
    let missing = child::missing();
    if missing.is_empty() {
        return Ok(());
    }
    let list = |pick: fn(&(&'static str, &'static str)) -> &'static str| {
        let mut names: Vec<&str> = missing.iter().map(pick).collect();
        names.dedup();
        names.join(", ")
    };
    Err(format!(
        "not installed on this node: {}; install {}",
        list(|(program, _)| program),
        list(|(_, package)| package)
    ))
}

#[tonic::async_trait]
impl Identity for Plugin {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: DRIVER.to_owned(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..GetPluginInfoResponse::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let services = [
            Service::ControllerService,
            Service::VolumeAccessibilityConstraints,
            Service::GroupControllerService,
        ];
        let services = services.map(|service| {
            Type::Service(plugin_capability::Service {
                r#type: service.into(),
            })
        });
        let expansion = Type::VolumeExpansion(plugin_capability::VolumeExpansion {
            r#type: Expansion::Online.into(),
        });
        let all = services.into_iter().chain([expansion]);
        Ok(Response::new(GetPluginCapabilitiesResponse {
            capabilities: all
                .map(|of| PluginCapability { r#type: Some(of) })
                .collect(),
        }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        complaint().map_err(Status::failed_precondition)?;
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
    }
}
