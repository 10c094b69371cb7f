//! Whether a wish goes together with the objects that are there.

use proto::card::v1::LocalDevice;
use proto::opi::storage::v1::{NvmeController, NvmeNamespace, NvmeSubsystem, VirtioBlk};
use proto::volume::v1::{ExposureKind, FunctionId};
use std::time::Duration;
use tokio::time::Instant;

use crate::bridge::Bridge;
use crate::card::{Error, Result};
use crate::objects::{collection, parent};
use crate::resource::{self, Resource};
use crate::wanted;

/// How long the inventory may take.
const LOOK: Duration = Duration::from_secs(10);

/// A message as another kind: the same bytes, where the name says that it is one.
fn cast<R: Resource, T: Resource>(wish: &R) -> Option<T> {
    (R::COLLECTION == T::COLLECTION).then(|| T::decode(&*wish.encode_to_vec()).ok())?
}

impl Bridge {
    /// The caller holds `changing`.
    pub(crate) async fn fits<R: Resource>(&self, wish: &R) -> Result<()> {
        let name = wish.name();
        if let Some(parent) = parent(name) {
            if !self.objects.is_there(parent) {
                return Err(Error::NotFound(format!("parent: there is no {parent}")));
            }
            if self.objects.deleting(parent).is_some() {
                return Err(Error::Precondition(format!(
                    "parent: {parent} is being taken away"
                )));
            }
        }
        if let Some(source) = cast::<R, proto::card::v1::Source>(wish) {
            return self.uuid_is_free(&source.uuid);
        }
        if let Some(device) = cast::<R, LocalDevice>(wish) {
            let kind = resource::local_shape(&device)?.kind();
            if !self.card.abilities().local.contains(&kind) {
                return Err(Error::Unable(format!(
                    "this card makes no {}",
                    kind.as_str_name()
                )));
            }
            let beside = ExposureKind::VhostUserBlk;
            if resource::local_socket(&device).is_some()
                && !self.card.abilities().local.contains(&beside)
            {
                return Err(Error::Precondition(
                    "exposure.local_block_device.socket: this card makes no vhost-user-blk sockets; leave it out"
                        .into(),
                ));
            }
            return self.is_unexposed(&device.volume_name_ref);
        }
        if let Some(device) = cast::<R, VirtioBlk>(wish) {
            self.is_unexposed(&device.volume_name_ref)?;
            let function = resource::function(device.pcie_id.as_ref())?;
            return self
                .function_is_free(function, ExposureKind::VirtioBlkFunction)
                .await;
        }
        if let Some(controller) = cast::<R, NvmeController>(wish) {
            let siblings = self.objects.all::<NvmeController>();
            if let Some(other) = siblings
                .iter()
                .find(|other| parent(&other.wish.name) == parent(name))
            {
                return Err(Error::Exhausted(format!(
                    "{} has {} already: this card's subsystems have one controller",
                    parent(name).unwrap_or_default(),
                    other.wish.name
                )));
            }
            let function = wanted::controller_function(&controller)
                .ok_or_else(|| Error::Invalid("spec.pcie_id: must be given".into()))?;
            return self
                .function_is_free(function, ExposureKind::NvmeFunction)
                .await;
        }
        if let Some(namespace) = cast::<R, NvmeNamespace>(wish) {
            return self.namespace_fits(name, &namespace);
        }
        if let Some(subsystem) = cast::<R, NvmeSubsystem>(wish) {
            let nqn = |s: &NvmeSubsystem| s.spec.clone().unwrap_or_default().nqn;
            let all = self.objects.all::<NvmeSubsystem>();
            if let Some(other) = all.iter().find(|other| nqn(&other.wish) == nqn(&subsystem)) {
                return Err(Error::Precondition(format!(
                    "spec.nqn: {} has it",
                    other.wish.name
                )));
            }
        }
        if let Some(qos) = cast::<R, proto::opi::storage::v1::QosVolume>(wish) {
            wanted::base(&self.objects, &qos.volume_name_ref)?;
        }
        Ok(())
    }

    fn namespace_fits(&self, name: &str, namespace: &NvmeNamespace) -> Result<()> {
        let spec = namespace.spec.clone().unwrap_or_default();
        let siblings = self.objects.all::<NvmeNamespace>();
        if let Some(other) = siblings
            .iter()
            .find(|other| parent(&other.wish.name) == parent(name))
        {
            return Err(Error::Exhausted(format!(
                "{} has {} already: this card's functions have one namespace",
                parent(name).unwrap_or_default(),
                other.wish.name
            )));
        }
        self.is_unexposed(&spec.volume_name_ref)?;
        let base = wanted::base(&self.objects, &spec.volume_name_ref)?;
        let uuid = wanted::uuid_of(&self.objects, &base).unwrap_or_default();
        let nguid = spec.nguid.replace('-', "").to_ascii_lowercase();
        let given = [
            ("spec.uuid", spec.uuid, uuid.to_string()),
            ("spec.nguid", nguid, uuid.simple().to_string()),
        ];
        for (field, given, own) in given {
            if !given.is_empty() && given != own {
                return Err(Error::Invalid(format!(
                    "{field}: {base} has {own}; leave it out"
                )));
            }
        }
        Ok(())
    }

    fn uuid_is_free(&self, uuid: &str) -> Result<()> {
        let all = self.objects.all::<proto::card::v1::Source>();
        match all.iter().find(|other| other.wish.uuid == uuid) {
            Some(other) => Err(Error::Precondition(format!(
                "uuid {uuid}: {} has it; use that one",
                other.wish.name
            ))),
            None => Ok(()),
        }
    }

    /// A volume has one exposure.
    fn is_unexposed(&self, volume: &str) -> Result<()> {
        let base = wanted::base(&self.objects, volume)?;
        if self.objects.deleting(&base).is_some() || self.objects.deleting(volume).is_some() {
            return Err(Error::Precondition(format!(
                "volume_name_ref: {volume} is being taken away"
            )));
        }
        match wanted::exposers(&self.objects, &base).first() {
            Some(other) => Err(Error::Precondition(format!(
                "{base} is exposed by {other} already: delete that first"
            ))),
            None => Ok(()),
        }
    }

    async fn function_is_free(&self, wanted_id: FunctionId, kind: ExposureKind) -> Result<()> {
        let taken = wanted::functions(&self.objects);
        if let Some((_, name)) = taken.iter().find(|(id, _)| *id == wanted_id) {
            return Err(Error::Exhausted(format!(
                "pcie_id: {name} has that function; Inventory lists the free ones"
            )));
        }
        let functions = self.card.functions(Instant::now() + LOOK).await?;
        match functions.iter().find(|function| function.id == wanted_id) {
            Some(function) if !function.kinds.contains(&kind) => Err(Error::Unable(format!(
                "pcie_id: that function can't be {}",
                kind.as_str_name()
            ))),
            Some(function) if function.occupied => Err(Error::Exhausted(
                "pcie_id: the host still holds that function; Inventory lists the free ones".into(),
            )),
            Some(_) => Ok(()),
            None if functions.is_empty() => Err(Error::Unable(
                "this card has no PCI functions; make a local device (outboard.card.v1)".into(),
            )),
            None => Err(Error::NotFound(
                "pcie_id: there is no such function; Inventory lists them".into(),
            )),
        }
    }
}

/// Whether an object is one that a host sees.
pub(crate) fn is_exposer(name: &str) -> bool {
    matches!(
        collection(name),
        Some("localDevices" | "virtioBlks" | "nvmeNamespaces")
    )
}
