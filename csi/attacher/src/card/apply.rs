//! One step, as one call.

use fail::fail_point;
use proto::card::v1::{
    CreateLocalDeviceRequest, CreateSourceRequest, DeleteLocalDeviceRequest, DeleteSourceRequest,
    ResizeRequest, SetLimitsRequest,
};
use proto::opi::storage::v1::nvme_controller_spec::Endpoint;
use proto::opi::storage::v1::{
    CreateNvmeControllerRequest, CreateNvmeNamespaceRequest, CreateNvmeSubsystemRequest,
    CreateVirtioBlkRequest, DeleteNvmeControllerRequest, DeleteNvmeNamespaceRequest,
    DeleteNvmeSubsystemRequest, DeleteVirtioBlkRequest, NvmeController, NvmeControllerSpec,
    NvmeNamespace, NvmeNamespaceSpec, NvmeSubsystem, NvmeSubsystemSpec, NvmeTransportType,
    PciEndpoint, VirtioBlk,
};
use proto::volume::v1::FunctionId;

use super::{Card, call, found, name};
use crate::core::plan::Step;
use crate::core::wanted::{Content, Part};
use crate::failure::Failure;

impl Card {
    /// Does `step` for the objects named `object`.
    pub(crate) async fn apply(&self, object: &str, step: &Step) -> Result<(), Failure> {
        let mut card = self.card.clone();
        let source = name::source(object);
        match step {
            Step::CreateSource(volume) => {
                let asked = CreateSourceRequest {
                    source_id: object.to_owned(),
                    source: Some(volume.source.clone()),
                    read_only: volume.read_only,
                    uuid: volume.uuid.clone(),
                };
                call("connecting the source", asked, |r| async move {
                    card.create_source(r).await
                })
                .await?;
                fail_point!("source::created");
            }
            Step::SetLimits(limits) => {
                let asked = SetLimitsRequest {
                    name: source,
                    limits: Some(*limits),
                };
                call("setting the limits", asked, |r| async move {
                    card.set_limits(r).await
                })
                .await?;
                fail_point!("limits::set");
            }
            Step::Create(content) => {
                self.create(object, content).await?;
                fail_point!("part::created");
            }
            Step::Resize(size) => {
                self.resize(object, *size).await?;
                fail_point!("source::resized");
            }
            Step::Delete { part, force } => {
                self.delete(object, *part, *force).await?;
                fail_point!("part::deleted");
            }
            Step::DeleteSource => {
                let asked = DeleteSourceRequest { name: source };
                let answer = call("disconnecting the source", asked, |r| async move {
                    card.delete_source(r).await
                });
                found(answer.await)?;
                fail_point!("source::deleted");
            }
        }
        Ok(())
    }

    /// The size that the host sees then. 0: as large as the target now is.
    pub(crate) async fn resize(&self, object: &str, size_bytes: u64) -> Result<u64, Failure> {
        let mut card = self.card.clone();
        let name = name::source(object);
        let asked = ResizeRequest { name, size_bytes };
        let answer = call("taking over the new size", asked, |r| async move {
            card.resize(r).await
        });
        Ok(answer.await?.size_bytes)
    }

    async fn create(&self, object: &str, content: &Content) -> Result<(), Failure> {
        let id = object.to_owned();
        let (mut card, mut nvme, mut blk) =
            (self.card.clone(), self.nvme.clone(), self.blk.clone());
        let volume_name_ref = name::source(object);
        match content.clone() {
            Content::LocalDevice {
                exposure,
                read_only,
                serial,
            } => {
                let asked = CreateLocalDeviceRequest {
                    local_device_id: id,
                    volume_name_ref,
                    exposure: Some(exposure),
                    read_only,
                    serial,
                };
                let ask = |r| async move { card.create_local_device(r).await };
                call("exposing the local device", asked, ask)
                    .await
                    .map(drop)
            }
            Content::Subsystem { nqn, serial } => {
                let spec = NvmeSubsystemSpec {
                    nqn,
                    serial_number: serial,
                    ..NvmeSubsystemSpec::default()
                };
                let asked = CreateNvmeSubsystemRequest {
                    nvme_subsystem: Some(NvmeSubsystem {
                        spec: Some(spec),
                        ..NvmeSubsystem::default()
                    }),
                    nvme_subsystem_id: id,
                };
                let ask = |r| async move { nvme.create_nvme_subsystem(r).await };
                call("making the subsystem", asked, ask).await.map(drop)
            }
            Content::Namespace { uuid } => {
                let spec = NvmeNamespaceSpec {
                    uuid,
                    volume_name_ref,
                    ..NvmeNamespaceSpec::default()
                };
                let asked = CreateNvmeNamespaceRequest {
                    parent: name::subsystem(object),
                    nvme_namespace: Some(NvmeNamespace {
                        spec: Some(spec),
                        ..NvmeNamespace::default()
                    }),
                    nvme_namespace_id: id,
                };
                let ask = |r| async move { nvme.create_nvme_namespace(r).await };
                call("making the namespace", asked, ask).await.map(drop)
            }
            Content::Controller { function } => {
                let mut spec = NvmeControllerSpec {
                    endpoint: function.map(|function| Endpoint::PcieId(endpoint(function))),
                    ..NvmeControllerSpec::default()
                };
                spec.set_trtype(NvmeTransportType::Pcie);
                let asked = CreateNvmeControllerRequest {
                    parent: name::subsystem(object),
                    nvme_controller: Some(NvmeController {
                        spec: Some(spec),
                        ..NvmeController::default()
                    }),
                    nvme_controller_id: id,
                };
                let ask = |r| async move { nvme.create_nvme_controller(r).await };
                call("putting the controller on its function", asked, ask)
                    .await
                    .map(drop)
            }
            Content::VirtioBlk { function } => {
                let asked = CreateVirtioBlkRequest {
                    virtio_blk: Some(VirtioBlk {
                        pcie_id: function.map(endpoint),
                        volume_name_ref,
                        ..VirtioBlk::default()
                    }),
                    virtio_blk_id: id,
                };
                let ask = |r| async move { blk.create_virtio_blk(r).await };
                call("exposing the virtio-blk device", asked, ask)
                    .await
                    .map(drop)
            }
        }
    }

    /// `force` is for local devices: OPI has no such word for a PCI function.
    async fn delete(&self, object: &str, part: Part, force: bool) -> Result<(), Failure> {
        let (mut card, mut nvme, mut blk) =
            (self.card.clone(), self.nvme.clone(), self.blk.clone());
        let allow_missing = true;
        let done = match part {
            Part::LocalDevice => {
                let name = name::local_device(object);
                let asked = DeleteLocalDeviceRequest { name, force };
                let ask = |r| async move { card.delete_local_device(r).await };
                call("taking the local device away", asked, ask)
                    .await
                    .map(drop)
            }
            Part::Subsystem => {
                let name = name::subsystem(object);
                let asked = DeleteNvmeSubsystemRequest {
                    name,
                    allow_missing,
                };
                let ask = |r| async move { nvme.delete_nvme_subsystem(r).await };
                call("deleting the subsystem", asked, ask).await.map(drop)
            }
            Part::Namespace => {
                let name = name::namespace(object);
                let asked = DeleteNvmeNamespaceRequest {
                    name,
                    allow_missing,
                };
                let ask = |r| async move { nvme.delete_nvme_namespace(r).await };
                call("deleting the namespace", asked, ask).await.map(drop)
            }
            Part::Controller => {
                let name = name::controller(object);
                let asked = DeleteNvmeControllerRequest {
                    name,
                    allow_missing,
                };
                let ask = |r| async move { nvme.delete_nvme_controller(r).await };
                call("taking the controller from the host", asked, ask)
                    .await
                    .map(drop)
            }
            Part::VirtioBlk => {
                let name = name::virtio_blk(object);
                let asked = DeleteVirtioBlkRequest {
                    name,
                    allow_missing,
                };
                let ask = |r| async move { blk.delete_virtio_blk(r).await };
                call("taking the virtio-blk device from the host", asked, ask)
                    .await
                    .map(drop)
            }
        };
        found(done).map(|_| ())
    }
}

fn endpoint(function: FunctionId) -> PciEndpoint {
    let number = |value: u32| Some(i32::try_from(value).unwrap_or(i32::MAX));
    PciEndpoint {
        port_id: number(function.port),
        physical_function: number(function.physical),
        // OPI has 0 for the physical function itself.
        virtual_function: number(function.r#virtual.unwrap_or_default()),
    }
}
