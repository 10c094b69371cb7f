//! The card that needs no DPU: `qemu-storage-daemon`s under `outboard-engine`, loop devices, the root ports of a virtual machine.
//!
//! Order of every change: the files that are needed, then the recipe, then the running daemon by its monitor, then what stands on its
//! exports. Taking away goes the other way round, but the recipe is still first: a daemon that is started again in between must not
//! bring back what is being taken away.

mod credentials;
mod daemon;
mod exports;
mod loops;
mod losetup;
mod monitors;
mod recipe;
mod serial;
mod socket;
mod stand;
mod trace;
mod vm;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use engine::{Client, State};
use proto::volume::v1::device::Address;
use proto::volume::v1::{ExposureKind, SourceKind};
use tokio::sync::broadcast;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Abilities, Card, Error, Function, Look, Notice, Result, Shape, Volume};
use monitors::Monitors;
pub(crate) use recipe::Places;
pub(crate) use serial::serial;
use stand::{text, vm_id};
use trace::Traces;
use vm::Found;
pub(crate) use vm::Vm;

/// What all exposures of this card have.
const BLOCK: u32 = 512;

/// The linux card.
#[derive(Debug)]
pub(crate) struct Linux {
    engine: Client,
    places: Places,
    traces: Traces,
    monitors: Monitors,
    vm: Option<Vm>,
    abilities: Abilities,
    notices: broadcast::Sender<Notice>,
    /// Volumes of daemons that are not ours, by the engine's id.
    guests: Mutex<HashMap<String, Uuid>>,
}

impl Linux {
    /// The card on an engine. `state` is the directory of its records.
    pub(crate) fn new(
        engine: Client,
        places: Places,
        state: &std::path::Path,
        boot: &str,
        vm: Option<Vm>,
    ) -> std::result::Result<Arc<Self>, journal::Error> {
        let abilities = Abilities {
            kind: "linux",
            sources: vec![
                SourceKind::Nbd,
                SourceKind::File,
                SourceKind::BlockDevice,
                SourceKind::Engine,
            ],
            local: vec![ExposureKind::LocalBlockDevice, ExposureKind::VhostUserBlk],
            online_resize: true,
            survives_engine_restart: false,
        };
        Ok(Arc::new(Linux {
            engine,
            places,
            traces: Traces::open(state, boot)?,
            monitors: Monitors::default(),
            vm,
            abilities,
            notices: broadcast::channel(1024).0,
            guests: Mutex::default(),
        }))
    }

    /// Somebody is connected to the socket beside the block device.
    fn has_guest(&self, volume: &Volume) -> bool {
        let socket = volume.exposed.as_ref().and_then(|exposed| exposed.socket);
        socket.is_some()
            && socket::path(&self.places, volume.uuid).is_ok_and(|at| socket::is_connected(&at))
    }

    fn vm(&self) -> Result<&Vm> {
        self.vm.as_ref().ok_or_else(|| {
            Error::Unable(
                "this card has no functions: it runs beside no virtual machine (--vm-monitor); use a local device".into(),
            )
        })
    }
}

#[async_trait]
impl Card for Linux {
    fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    async fn connect(&self, volume: &Volume, deadline: Instant) -> Result<Look> {
        recipe::check(&volume.medium, &self.places)?;
        let served = self.serve(volume, deadline).await?;
        Ok(Look {
            size: served.size,
            block_size: BLOCK,
            ..Look::default()
        })
    }

    async fn disconnect(&self, volume: &Volume, deadline: Instant) -> Result<()> {
        let (id, ours) = recipe::daemon_of(volume);
        if ours {
            self.engine.remove(&id, deadline).await?;
        }
        fail::fail_point!("card::disconnected");
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        guests.retain(|_, uuid| *uuid != volume.uuid);
        self.traces.forget(volume.uuid)
    }

    async fn expose(&self, volume: &Volume, deadline: Instant) -> Result<Look> {
        let Some(exposed) = &volume.exposed else {
            return self.connect(volume, deadline).await;
        };
        recipe::check(&volume.medium, &self.places)?;
        if exposed.shape.function().is_some() {
            self.vm()?;
            if matches!(exposed.shape, Shape::Nvme(_)) && !recipe::daemon_of(volume).1 {
                return Err(Error::Unable(
                    "an NVMe function can't be made on a daemon of the same node: its NBD server is the back end's; give the volume's NBD export as the source".into(),
                ));
            }
        }
        if exposed.shape == Shape::BlockDevice {
            daemon::make_mount_point(&self.places.file(volume.uuid)).await?;
        }
        if exposed.socket.is_some() {
            socket::path(&self.places, volume.uuid)?;
            socket::make(&self.places, volume.uuid).await?;
        }
        fail::fail_point!("card::exposing");
        let served = self.serve(volume, deadline).await?;
        fail::fail_point!("card::exported");
        let device = self
            .stand(volume, exposed, &served.daemon, served.size, deadline)
            .await?;
        Ok(Look {
            size: served.size,
            block_size: BLOCK,
            device: Some(device),
            ..Look::default()
        })
    }

    async fn unexpose(&self, volume: &Volume, force: bool, deadline: Instant) -> Result<()> {
        let Some(exposed) = &volume.exposed else {
            return Ok(());
        };
        let without = Volume {
            exposed: None,
            ..volume.clone()
        };
        let file = self.places.file(volume.uuid);
        let known = self.traces.device(volume.uuid);
        match &exposed.shape {
            Shape::BlockDevice => {
                if !force
                    && let Some(device) = loops::find(&file, known.clone(), deadline).await
                    && device.in_use().await
                {
                    return Err(Error::InUse(format!(
                        "{} is open or mounted; unmount it, or set `force`: who has it open then gets I/O errors",
                        device.path().display()
                    )));
                }
                if !force && self.has_guest(volume) {
                    return Err(Error::InUse(format!(
                        "{} has a guest; end it, or set `force`: the guest then gets I/O errors",
                        self.places.vhost_directory(volume.uuid).display()
                    )));
                }
                self.unwish(&without, deadline).await?;
                fail::fail_point!("card::unexposing");
                loops::remove(&file, known.as_ref(), deadline).await?;
            }
            Shape::VhostUser(_) => {
                if !force && socket::is_connected(&self.places.socket(volume.uuid)) {
                    return Err(Error::InUse(format!(
                        "{} has a guest; end it, or set `force`: the guest then gets I/O errors",
                        self.places.socket(volume.uuid).display()
                    )));
                }
                self.unwish(&without, deadline).await?;
            }
            // The guest is asked, and its export stays until it has let go.
            Shape::Nvme(_) | Shape::VirtioBlk(_) => {
                self.vm()?.unplug(&vm_id(volume.uuid), deadline).await?;
                self.unwish(&without, deadline).await?;
            }
        }
        fail::fail_point!("card::undone");
        self.withdraw(&without, deadline).await?;
        fail::fail_point!("card::withdrawn");
        self.traces.set_device(volume.uuid, None)?;
        daemon::remove_file(&file).await?;
        socket::remove(&self.places, volume.uuid).await?;
        daemon::remove_file(&self.places.socket(volume.uuid)).await
    }

    async fn resize(&self, volume: &Volume, size: u64, deadline: Instant) -> Result<u64> {
        if volume
            .exposed
            .as_ref()
            .is_some_and(|exposed| matches!(exposed.shape, Shape::Nvme(_)))
        {
            return Err(Error::Unable(
                "QEMU's NVMe device can't tell a guest of another size: take the namespace away, call Resize, make it again".into(),
            ));
        }
        let now = self.grow(volume, size, deadline).await?;
        let file = self.places.file(volume.uuid);
        if let Some(exposed) = &volume.exposed
            && exposed.shape == Shape::BlockDevice
            && let Some(device) =
                loops::find(&file, self.traces.device(volume.uuid), deadline).await
        {
            fail::fail_point!("card::growing");
            loops::grow(&device, &file, deadline).await?;
            if device.size() < now {
                return Err(Error::Away(format!(
                    "{} has {} bytes, its export {now}; call again",
                    device.path().display(),
                    device.size()
                )));
            }
        }
        Ok(now)
    }

    async fn limit(&self, volume: &Volume, deadline: Instant) -> Result<()> {
        let limited = volume.limits != proto::volume::v1::Limits::default();
        if limited && !recipe::daemon_of(volume).1 {
            return Err(Error::Unable(
                "a volume of the same node's daemon is limited by its back end, not by the card"
                    .into(),
            ));
        }
        self.serve(volume, deadline).await.map(drop)
    }

    async fn look(&self, volume: &Volume, users: bool, deadline: Instant) -> Result<Look> {
        let (id, _) = recipe::daemon_of(volume);
        let mut look = Look {
            block_size: BLOCK,
            ..Look::default()
        };
        let daemon = self.engine.get(&id, deadline).await?;
        let Some(daemon) = daemon else {
            look.trouble = Some(format!(
                "daemon {id} is not there; it is started by the next call that changes the volume"
            ));
            return Ok(look);
        };
        match &daemon.state {
            State::Running => look.size = self.size(&daemon, deadline).await?,
            State::Failed { why } => look.trouble = Some(why.clone()),
            State::Starting | State::Stopped => {
                look.trouble = Some(format!("daemon {id} is being started"));
            }
        }
        let Some(exposed) = &volume.exposed else {
            return Ok(look);
        };
        // What the host sees: a loop device may be behind the node that its file shows.
        let mut size = look.size;
        let (address, in_use) = match &exposed.shape {
            Shape::BlockDevice => {
                let known = self.traces.device(volume.uuid);
                let device = loops::find(&self.places.file(volume.uuid), known, deadline).await;
                if device.is_none() && look.trouble.is_none() {
                    look.trouble =
                        Some("its loop device is dead or missing: it is being made again".into());
                }
                match device {
                    None => (None, false),
                    Some(device) => {
                        size = device.size();
                        let used = users
                            && (loops::is_mounted(&device.name)
                                || loops::is_open(&device.path())
                                || self.has_guest(volume));
                        (Some(Address::Path(text(device.path()))), used)
                    }
                }
            }
            Shape::VhostUser(_) => {
                let socket = self.places.socket(volume.uuid);
                let in_use = socket::is_connected(&socket);
                (
                    socket.exists().then(|| Address::SocketPath(text(socket))),
                    in_use,
                )
            }
            Shape::Nvme(_) | Shape::VirtioBlk(_) => {
                match self.vm()?.find(&vm_id(volume.uuid), deadline).await? {
                    Found::At(address) => (Some(Address::PciAddress(address)), true),
                    Found::Absent => (None, false),
                    Found::Dead => {
                        look.trouble = Some(
                            "its storage daemon has died; it is taken from the guest and given anew, and if requests of the guest were \
                             under way, not before the machine is restarted"
                                .into(),
                        );
                        (None, true)
                    }
                }
            }
        };
        look.in_use = in_use;
        let beside = exposed
            .socket
            .and_then(|_| socket::path(&self.places, volume.uuid).ok())
            .filter(|socket| socket.exists());
        look.device = address.map(|address| self.device(volume, exposed, size, address, beside));
        Ok(look)
    }

    async fn functions(&self, deadline: Instant) -> Result<Vec<Function>> {
        match &self.vm {
            Some(vm) => vm.functions(deadline).await,
            None => Ok(Vec::new()),
        }
    }

    fn epoch(&self) -> String {
        self.traces.losses().to_string()
    }

    fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }
}
