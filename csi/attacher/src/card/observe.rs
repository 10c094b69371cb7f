//! What the card has of one attachment.

use proto::card::v1::{
    GetDeviceRequest, GetDeviceResponse, GetLocalDeviceRequest, GetSourceRequest, LocalDevice,
    Source,
};
use proto::opi::storage::v1::nvme_controller_spec::Endpoint;
use proto::opi::storage::v1::{
    GetNvmeControllerRequest, GetNvmeNamespaceRequest, GetNvmeSubsystemRequest,
    GetVirtioBlkRequest, PciEndpoint,
};
use proto::volume::v1::{ExposureKind, FunctionId};
use tonic::Code;

use super::{Card, call, found, name};
use crate::core::seen::{self, HostEnd, Seen};
use crate::core::wanted::{Content, Volume};
use crate::failure::Failure;

impl Card {
    /// What there is under the names of `object`, as the exposure `kind` would have it.
    pub(crate) async fn observe(&self, object: &str, kind: ExposureKind) -> Result<Seen, Failure> {
        // The bridge keeps a connection to the daemon's monitor, which all of these share.
        let (source, parts, device) = tokio::join!(
            self.source(object),
            self.parts(object, kind),
            self.device(object, kind, false)
        );
        let (source, parts) = (source?, parts?);
        // What the bridge can't say of the host's end must not keep anybody from taking it away.
        let (device, unsaid) = match device {
            Ok(found) => (found, None),
            Err(why) if why.code == Code::Unavailable => (None, Some(why.sentence)),
            Err(why) => return Err(why),
        };
        let mut seen = Seen {
            source: source.map(source_of),
            unsaid,
            ..Seen::default()
        };
        for part in parts {
            seen.parts.insert(part.part(), part);
        }
        if let Some(answer) = device {
            seen.epoch = answer.epoch;
            seen.device = answer.device.map(|device| HostEnd {
                device,
                in_use: answer.in_use,
            });
        }
        Ok(seen)
    }

    /// Whether somebody at the host has the device of `object`; no device, nobody.
    pub(crate) async fn in_use(&self, object: &str, kind: ExposureKind) -> Result<bool, Failure> {
        let answer = self.device(object, kind, true).await?;
        Ok(answer.is_some_and(|answer| answer.in_use))
    }

    async fn source(&self, object: &str) -> Result<Option<Source>, Failure> {
        let mut card = self.card.clone();
        let name = name::source(object);
        let asked = GetSourceRequest { name };
        let answer = call("reading the source", asked, |r| async move {
            card.get_source(r).await
        });
        found(answer.await)
    }

    async fn parts(&self, object: &str, kind: ExposureKind) -> Result<Vec<Content>, Failure> {
        match kind {
            ExposureKind::NvmeFunction => self.nvme_parts(object).await,
            ExposureKind::VirtioBlkFunction => {
                let mut blk = self.blk.clone();
                let name = name::virtio_blk(object);
                let asked = GetVirtioBlkRequest { name };
                let answer = call("reading the virtio-blk device", asked, |r| async move {
                    blk.get_virtio_blk(r).await
                });
                let found = found(answer.await)?;
                let content = found.map(|blk| Content::VirtioBlk {
                    function: blk.pcie_id.map(function),
                });
                Ok(content.into_iter().collect())
            }
            _ => {
                let mut card = self.card.clone();
                let name = name::local_device(object);
                let asked = GetLocalDeviceRequest { name };
                let answer = call("reading the local device", asked, |r| async move {
                    card.get_local_device(r).await
                });
                Ok(found(answer.await)?.map(local_device).into_iter().collect())
            }
        }
    }

    async fn nvme_parts(&self, object: &str) -> Result<Vec<Content>, Failure> {
        let (mut first, mut second, mut third) =
            (self.nvme.clone(), self.nvme.clone(), self.nvme.clone());
        let subsystem = GetNvmeSubsystemRequest {
            name: name::subsystem(object),
        };
        let namespace = GetNvmeNamespaceRequest {
            name: name::namespace(object),
        };
        let controller = GetNvmeControllerRequest {
            name: name::controller(object),
        };
        let (subsystem, namespace, controller) = tokio::join!(
            call("reading the subsystem", subsystem, |r| async move {
                first.get_nvme_subsystem(r).await
            }),
            call("reading the namespace", namespace, |r| async move {
                second.get_nvme_namespace(r).await
            }),
            call("reading the controller", controller, |r| async move {
                third.get_nvme_controller(r).await
            }),
        );
        let mut parts = Vec::new();
        if let Some(spec) = found(subsystem)?.and_then(|subsystem| subsystem.spec) {
            parts.push(Content::Subsystem {
                nqn: spec.nqn,
                serial: spec.serial_number,
            });
        }
        if let Some(spec) = found(namespace)?.and_then(|namespace| namespace.spec) {
            parts.push(Content::Namespace { uuid: spec.uuid });
        }
        if let Some(spec) = found(controller)?.and_then(|controller| controller.spec) {
            let function = match spec.endpoint {
                Some(Endpoint::PcieId(endpoint)) => Some(function(endpoint)),
                _ => None,
            };
            parts.push(Content::Controller { function });
        }
        Ok(parts)
    }

    async fn device(
        &self,
        object: &str,
        kind: ExposureKind,
        users: bool,
    ) -> Result<Option<GetDeviceResponse>, Failure> {
        let name = match kind {
            ExposureKind::NvmeFunction => name::namespace(object),
            ExposureKind::VirtioBlkFunction => name::virtio_blk(object),
            _ => name::local_device(object),
        };
        let mut card = self.card.clone();
        let asked = GetDeviceRequest { name, users };
        let answer = call("reading the host's device", asked, |r| async move {
            card.get_device(r).await
        });
        match found(answer.await) {
            // There, but not at the host (yet, or not any more).
            Err(failure) if failure.code == Code::FailedPrecondition => Ok(None),
            other => other,
        }
    }
}

fn source_of(source: Source) -> seen::Source {
    seen::Source {
        state: source.state(),
        message: source.message,
        volume: Volume {
            source: source.source.unwrap_or_default(),
            read_only: source.read_only,
            uuid: source.uuid,
        },
    }
}

fn local_device(device: LocalDevice) -> Content {
    Content::LocalDevice {
        exposure: device.exposure.unwrap_or_default(),
        read_only: device.read_only,
        serial: device.serial,
    }
}

/// OPI has 0 for the physical function itself.
fn function(endpoint: PciEndpoint) -> FunctionId {
    let number = |value: Option<i32>| u32::try_from(value.unwrap_or_default()).unwrap_or_default();
    FunctionId {
        port: number(endpoint.port_id),
        physical: number(endpoint.physical_function),
        r#virtual: Some(number(endpoint.virtual_function)).filter(|number| *number > 0),
    }
}
