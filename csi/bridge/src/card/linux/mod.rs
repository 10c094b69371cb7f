//! The card that needs no DPU: `qemu-storage-daemon`s under `outboard-engine`, loop devices, the root ports of a virtual machine.
//!
//! Order of every change: the files that are needed, then the recipe, then the running daemon by its monitor, then what stands on its
//! exports. Taking away goes the other way round, but the recipe is still first: a daemon that is started again in between must not
//! bring back what is being taken away.

mod credentials;
mod daemon;
mod loops;
mod losetup;
mod monitors;
mod recipe;
mod serial;
mod trace;
mod vm;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use engine::{Client, Daemon, State};
use proto::volume::v1::device::Address;
use proto::volume::v1::{Device, ExposureKind, SourceKind};
use tokio::sync::broadcast;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Abilities, Card, Error, Exposed, Function, Look, Notice, Result, Shape, Volume};
use monitors::Monitors;
pub(crate) use recipe::Places;
pub(crate) use serial::serial;
use trace::Traces;
use vm::Plug;
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

    fn vm(&self) -> Result<&Vm> {
        self.vm.as_ref().ok_or_else(|| {
            Error::Unable(
                "this card has no functions: it runs beside no virtual machine (--vm-monitor); use a local device".into(),
            )
        })
    }

    fn plug(&self, volume: &Volume, exposed: &Exposed, daemon: &Daemon) -> Plug {
        match exposed.shape {
            Shape::Nvme(_) => Plug::Nvme {
                socket: daemon.nbd_socket(),
                export: recipe::export_id(volume.uuid),
                serial: exposed.serial.clone(),
                read_only: exposed.read_only || volume.read_only,
            },
            _ => Plug::VirtioBlk(self.places.socket(volume.uuid)),
        }
    }

    fn device(&self, volume: &Volume, exposed: &Exposed, size: u64, address: Address) -> Device {
        let carries = !matches!(exposed.shape, Shape::VhostUser(_) | Shape::VirtioBlk(_));
        Device {
            kind: exposed.shape.kind().into(),
            address: Some(address),
            serial: if carries {
                exposed.serial.clone()
            } else {
                String::new()
            },
            uuid: volume.uuid.to_string(),
            size_bytes: size,
            block_size: BLOCK,
            nsid: matches!(exposed.shape, Shape::Nvme(_)).into(),
            read_only: exposed.read_only || volume.read_only,
            function: exposed.shape.function(),
        }
    }

    /// What stands on the export, made or found.
    async fn stand(
        &self,
        volume: &Volume,
        exposed: &Exposed,
        daemon: &Daemon,
        size: u64,
        deadline: Instant,
    ) -> Result<Device> {
        let mut size = size;
        let address = match &exposed.shape {
            Shape::BlockDevice => {
                let file = self.places.file(volume.uuid);
                let known = self.traces.device(volume.uuid);
                let read_only = exposed.read_only || volume.read_only;
                let daemon = daemon.pid.ok_or_else(|| {
                    Error::Away(format!("daemon {} has just ended; call again", daemon.id))
                })?;
                let device = loops::ensure(&file, daemon, read_only, known, deadline).await?;
                self.traces.set_device(volume.uuid, Some(device.clone()))?;
                if device.size() != size {
                    loops::grow(&device, &file, deadline).await?;
                }
                size = device.size();
                Address::Path(text(device.path()))
            }
            Shape::VhostUser(_) => {
                self.traces.set_device(volume.uuid, None)?;
                Address::SocketPath(text(self.places.socket(volume.uuid)))
            }
            Shape::Nvme(function) | Shape::VirtioBlk(function) => {
                self.traces.set_device(volume.uuid, None)?;
                let plug = self.plug(volume, exposed, daemon);
                let id = vm_id(volume.uuid);
                Address::PciAddress(self.vm()?.plug(&id, *function, &plug, deadline).await?)
            }
        };
        Ok(self.device(volume, exposed, size, address))
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
                self.unwish(&without, deadline).await?;
                fail::fail_point!("card::unexposing");
                loops::remove(&file, known.as_ref(), deadline).await?;
            }
            Shape::VhostUser(_) => {
                if !force && daemon::is_connected(&self.places.socket(volume.uuid)) {
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
                            && (loops::is_mounted(&device.name) || loops::is_open(&device.path()));
                        (Some(Address::Path(text(device.path()))), used)
                    }
                }
            }
            Shape::VhostUser(_) => {
                let socket = self.places.socket(volume.uuid);
                let in_use = daemon::is_connected(&socket);
                (
                    socket.exists().then(|| Address::SocketPath(text(socket))),
                    in_use,
                )
            }
            Shape::Nvme(_) | Shape::VirtioBlk(_) => {
                let found = self.vm()?.find(&vm_id(volume.uuid), deadline).await?;
                let in_use = found.is_some();
                (found.map(Address::PciAddress), in_use)
            }
        };
        look.in_use = in_use;
        look.device = address.map(|address| self.device(volume, exposed, size, address));
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

/// Of device, node and character device in the virtual machine.
fn vm_id(uuid: Uuid) -> String {
    format!("ob-{}", serial(uuid))
}

fn text(path: impl AsRef<std::path::Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}
