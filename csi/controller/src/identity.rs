//! CSI Identity.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::csi::v1::identity_server::Identity;
use proto::csi::v1::plugin_capability::service::Type as Services;
use proto::csi::v1::plugin_capability::volume_expansion::Type as Expansion;
use proto::csi::v1::plugin_capability::{self, Type, VolumeExpansion};
use proto::csi::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, PluginCapability, ProbeRequest, ProbeResponse,
};
use proto::deadline::Deadline;
use tonic::{Request, Response};

use crate::call::call;
use crate::driver::Driver;
use crate::status::Answer;

/// The service.
pub(crate) struct Service(pub(crate) Arc<Driver>);

#[tonic::async_trait]
impl Identity for Service {
    async fn get_plugin_info(
        &self,
        request: Request<GetPluginInfoRequest>,
    ) -> Answer<Response<GetPluginInfoResponse>> {
        call!(self, request, reads "GetPluginInfo" [] [], info)
    }

    async fn get_plugin_capabilities(
        &self,
        request: Request<GetPluginCapabilitiesRequest>,
    ) -> Answer<Response<GetPluginCapabilitiesResponse>> {
        call!(self, request, reads "GetPluginCapabilities" [] [], capabilities)
    }

    async fn probe(&self, request: Request<ProbeRequest>) -> Answer<Response<ProbeResponse>> {
        call!(self, request, reads "Probe" [] [], probe)
    }
}

async fn info(
    driver: &Driver,
    _: &GetPluginInfoRequest,
    _: Deadline,
) -> Answer<GetPluginInfoResponse> {
    Ok(GetPluginInfoResponse {
        name: driver.name.clone(),
        vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
        manifest: BTreeMap::new(),
    })
}

async fn probe(driver: &Driver, _: &ProbeRequest, _: Deadline) -> Answer<ProbeResponse> {
    Ok(ProbeResponse {
        ready: Some(driver.readiness.is_ready()),
    })
}

/// What is really there.
async fn capabilities(
    driver: &Driver,
    _: &GetPluginCapabilitiesRequest,
    _: Deadline,
) -> Answer<GetPluginCapabilitiesResponse> {
    let service = |kind: Services| {
        Type::Service(plugin_capability::Service {
            r#type: kind.into(),
        })
    };
    let any = driver.backends.any();
    let mut all = vec![service(Services::ControllerService)];
    if driver.backends.have_places() {
        all.push(service(Services::VolumeAccessibilityConstraints));
    }
    if any.groups {
        all.push(service(Services::GroupControllerService));
    }
    if any.expand {
        let online = driver.backends.all_expand_online();
        let when = if online {
            Expansion::Online
        } else {
            Expansion::Offline
        };
        all.push(Type::VolumeExpansion(VolumeExpansion {
            r#type: when.into(),
        }));
    }
    let all = all
        .into_iter()
        .map(|one| PluginCapability { r#type: Some(one) });
    Ok(GetPluginCapabilitiesResponse {
        capabilities: all.collect(),
    })
}
