//! What virt-launcher calls (KubeVirt's pkg/hooks/manager.go): Info once, then the callbacks of the newest version, a minute each.

mod callbacks;

use std::sync::Arc;
use std::time::Instant;

use proto::deadline::Deadline;
use proto::kubevirt::hooks::info::info_server::{Info, InfoServer};
use proto::kubevirt::hooks::info::{HookPoint, InfoParams, InfoResult};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status};
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::domain::{self, Block};
use crate::resolver::{self, Nic, Plug};
use crate::vmi::Vmi;
use crate::{annotation, cloud_init};

/// Everything that is served. `ended` is cancelled when virt-launcher says that the VM has ended.
pub fn router(config: Config, ended: CancellationToken) -> Router {
    let hooks = Hooks(Arc::new(State { config, ended }));
    let server = tonic::transport::Server::builder();
    callbacks::add(server, &hooks).add_service(InfoServer::new(hooks))
}

/// The sidecar.
#[derive(Clone)]
pub(crate) struct Hooks(Arc<State>);

struct State {
    config: Config,
    ended: CancellationToken,
}

#[tonic::async_trait]
impl Info for Hooks {
    async fn info(&self, _: Request<InfoParams>) -> Result<Response<InfoResult>, Status> {
        let config = &self.0.config;
        let mut points = vec!["OnDefineDomain", "Shutdown"];
        if config.tells_cloud_init() {
            points.push("PreCloudInitIso");
        }
        let point = |name: &str| HookPoint {
            name: name.into(),
            priority: 0,
        };
        Ok(Response::new(InfoResult {
            name: format!("vhostuser-shim-{}", config.binding),
            hook_points: points.into_iter().map(point).collect(),
            versions: ["v1alpha1", "v1alpha2", "v1alpha3"].map(Into::into).into(),
        }))
    }
}

impl Hooks {
    /// OnDefineDomain: the domain XML that libvirt shall get.
    async fn define(&self, from: MetadataMap, xml: &[u8], vmi: &[u8]) -> Result<Vec<u8>, Status> {
        let began = Instant::now();
        let vmi = Vmi::from_json(vmi).map_err(|error| invalid(&error))?;
        let answer = self.defined(&from, xml, &vmi).await;
        self.say("OnDefineDomain", &vmi, began, answer.as_ref().err());
        answer.map(String::into_bytes)
    }

    async fn defined(&self, from: &MetadataMap, xml: &[u8], vmi: &Vmi) -> Result<String, Status> {
        let xml = std::str::from_utf8(xml)
            .map_err(|error| invalid(&format!("the domain XML is not UTF-8: {error}")))?;
        let asked = vmi.annotation(annotation::BLOCK).unwrap_or_default();
        let blocks = Block::asked(asked, vmi, &self.0.config.places().hooks).map_err(|fault| {
            let key = annotation::BLOCK;
            invalid(&format!("annotation {key} of VM {}: {fault}", vmi.key()))
        })?;
        let nics = self.nics(from, vmi).await?;
        for nic in &nics {
            say_nic(vmi, nic);
        }
        domain::rewrite(xml, vmi, &nics, &blocks).map_err(|error| invalid(&error))
    }

    /// PreCloudInitIso: what cloud-init shall be told.
    async fn tell(
        &self,
        from: MetadataMap,
        sent: cloud_init::Data,
        vmi: &[u8],
    ) -> Result<cloud_init::Data, Status> {
        let began = Instant::now();
        let vmi = Vmi::from_json(vmi).map_err(|error| invalid(&error))?;
        let answer = self.told(&from, sent, &vmi).await;
        self.say("PreCloudInitIso", &vmi, began, answer.as_ref().err());
        answer
    }

    async fn told(
        &self,
        from: &MetadataMap,
        sent: cloud_init::Data,
        vmi: &Vmi,
    ) -> Result<cloud_init::Data, Status> {
        let asked = cloud_init::asked(vmi).map_err(|error| invalid(&error))?;
        if asked.is_empty() {
            return Ok(sent);
        }
        let nics = self.nics(from, vmi).await?;
        cloud_init::tell(sent, &asked, &nics).map_err(|error| invalid(&error))
    }

    /// The interfaces, as soon as the files say enough.
    async fn nics(&self, from: &MetadataMap, vmi: &Vmi) -> Result<Vec<Nic>, Status> {
        let config = &self.0.config;
        let places = config.places();
        let began = tokio::time::Instant::now();
        let until = (began + config.wait).min(Deadline::of(from).end());
        loop {
            let changes = places.changes();
            let sources = places.read(vmi, &config.binding);
            let error = match resolver::resolve(vmi, &config.binding, &sources) {
                Ok(nics) => return Ok(nics),
                Err(error) => error,
            };
            let waited = began.elapsed().as_secs();
            if !error.is_late() {
                return Err(Status::failed_precondition(error.to_string()));
            }
            if tokio::time::Instant::now() >= until {
                let sentence = format!("{error} (waited {waited} s)");
                return Err(Status::unavailable(sentence));
            }
            debug!(vm = vmi.key(), "{error}");
            tokio::select! {
                () = changes.come() => {}
                () = tokio::time::sleep_until(until) => {}
                () = self.0.ended.cancelled() => return Err(Status::cancelled("the VM has ended")),
            }
        }
    }

    fn say(&self, op: &'static str, vmi: &Vmi, began: Instant, error: Option<&Status>) {
        let (vm, uid) = (vmi.key(), vmi.metadata.uid.as_str());
        let took = format!("{:.1} ms", began.elapsed().as_secs_f64() * 1000.0);
        match error {
            None => info!(op, vm, uid, took, "done"),
            Some(error) => warn!(op, vm, uid, took, code = ?error.code(), "{}", error.message()),
        }
    }
}

fn say_nic(vmi: &Vmi, nic: &Nic) {
    let (vm, network, ifname) = (vmi.key(), nic.name.as_str(), nic.ifname.as_str());
    let (mac, said_by) = (nic.mac.as_str(), nic.said_by);
    match &nic.plug {
        Plug::VhostUser { path, mode } => {
            let mode = mode.word();
            info!(
                vm,
                network,
                ifname,
                mac,
                mtu = nic.mtu,
                path,
                mode,
                said_by,
                "vhost-user"
            );
        }
        Plug::Tap => warn!(
            vm,
            network,
            ifname,
            mac,
            mtu = nic.mtu,
            said_by,
            "a tap: this node has no vhost-user"
        ),
    }
}

fn invalid(error: &dyn ToString) -> Status {
    Status::invalid_argument(error.to_string())
}
