//! Functions of a host that is a QEMU virtual machine: its root ports. Devices are plugged by its monitor.
//!
//! QEMU's NVMe namespaces can't be plugged, only controllers with one namespace in them: so the namespace has no uuid of ours, and the
//! guest tells volumes by the controller's serial number.
//!
//! An NVMe function's requests wait while its volume's daemon is away: QEMU is an NBD client, and asks again what was not answered. A
//! vhost-user-blk device is not connected again, for qemu-storage-daemon keeps no account of requests in flight: some would be lost, others
//! done twice, from memory that the guest has used again. Such a device is dead with its daemon; it is taken from the guest and given
//! anew. A guest with requests under way does not let go of it before the machine ends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::volume::v1::{ExposureKind, FunctionId};
use qemu::commands::{
    Address, BlockdevAdd, BlockdevDel, ChardevAdd, ChardevRemove, ChardevSocket, DeviceAdd,
    DeviceDel, Driver, Node, PciDevice, QueryChardev, QueryPci,
};
use qemu::{Error as QmpError, Qmp};
use serde_json::{Map, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::card::{Error, Function, Result};

/// Seconds for which an NVMe function's requests wait for the card's daemon.
const RECONNECT: u32 = 60;
/// How long a guest may take to give a device up before the caller has to come again.
const RELEASE: Duration = Duration::from_secs(8);

/// A virtual machine.
#[derive(Debug)]
pub(crate) struct Vm {
    monitor: PathBuf,
    /// Root ports by number of function.
    ports: Vec<String>,
    /// The monitor serves one client.
    using: Mutex<()>,
}

/// What a look finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing of that id.
    Absent,
    /// The device's daemon has ended, and the guest's requests are never answered.
    Dead,
    /// At this address; empty where the guest has not numbered it.
    At(String),
}

/// What is plugged in.
#[derive(Debug, Clone)]
pub(crate) enum Plug {
    /// An NVMe controller over an NBD export.
    Nvme {
        /// Where the export is served.
        socket: PathBuf,
        /// Its name.
        export: String,
        /// Of the controller.
        serial: String,
        /// The guest can't write.
        read_only: bool,
    },
    /// A virtio-blk device over a vhost-user socket.
    VirtioBlk(PathBuf),
}

impl Vm {
    pub(crate) fn new(monitor: PathBuf, ports: Vec<String>) -> Self {
        Vm {
            monitor,
            ports,
            using: Mutex::default(),
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Qmp> {
        Qmp::connect(&self.monitor, deadline).await.map_err(|why| {
            Error::Away(format!(
                "the host's virtual machine does not answer: {why}; is it running?"
            ))
        })
    }

    fn port(&self, id: FunctionId) -> Result<&str> {
        let found = usize::try_from(id.physical)
            .ok()
            .and_then(|n| self.ports.get(n));
        match found {
            Some(port) if id.port == 0 && id.r#virtual.is_none() => Ok(port),
            _ => Err(Error::NotFound(format!(
                "function: port {}, physical {} is none of this card's (port 0, physical 0 to {}); Inventory lists them",
                id.port,
                id.physical,
                self.ports.len().saturating_sub(1)
            ))),
        }
    }

    /// Plugs `id` (of device, node and character device) into a function, if it is not there; a dead one is taken out first. The address
    /// as the guest has numbered it; none yet: empty.
    pub(crate) async fn plug(
        &self,
        id: &str,
        function: FunctionId,
        plug: &Plug,
        deadline: Instant,
    ) -> Result<String> {
        let port = self.port(function)?;
        let _using = self.using.lock().await;
        let qmp = self.connect(deadline).await?;
        let there = ports(&qmp, deadline).await?;
        let occupant = there
            .iter()
            .find(|(name, _)| name == port)
            .and_then(|(_, device)| device.as_ref());
        match occupant {
            Some(device) if device.qdev_id == id => {
                if !is_dead(&qmp, id, deadline).await? {
                    return Ok(address(device));
                }
                tracing::warn!(
                    device = id,
                    "its daemon has died: it is taken from the guest"
                );
                take_out(&qmp, id, deadline).await?;
            }
            Some(device) => {
                return Err(Error::Exhausted(format!(
                    "function {port}: device {:?} is in it; choose a free one (Inventory lists them)",
                    device.qdev_id
                )));
            }
            // A connection that was made before, and the device was not.
            None if is_dead(&qmp, id, deadline).await? => {
                remove_chardev(&qmp, id, deadline).await?;
            }
            None => {}
        }
        let mut properties = Map::new();
        let driver = match plug {
            Plug::Nvme {
                socket,
                export,
                serial,
                read_only,
            } => {
                let server = Address::Unix {
                    path: socket.clone(),
                };
                let mut node = Node::new(
                    id,
                    Driver::Nbd {
                        server,
                        export: Some(export.clone()),
                        tls_creds: None,
                        tls_hostname: None,
                        reconnect_delay: Some(RECONNECT),
                        open_timeout: Some(2),
                    },
                );
                node.discard = Some(qemu::commands::Discard::Unmap);
                node.read_only = Some(*read_only);
                unless(
                    qmp.execute(&BlockdevAdd(node), deadline).await,
                    "Duplicate nodes",
                )?;
                properties.insert("drive".into(), json!(id));
                properties.insert("serial".into(), json!(serial));
                "nvme"
            }
            Plug::VirtioBlk(socket) => {
                let backend = ChardevSocket {
                    path: socket.clone(),
                    server: false,
                    reconnect_ms: 0,
                };
                let add = ChardevAdd {
                    id: id.to_owned(),
                    backend,
                };
                unless(
                    qmp.execute(&add, deadline).await.map(drop),
                    "already exists",
                )?;
                properties.insert("chardev".into(), json!(id));
                // Else the guest takes the disk for one that writes through, and never flushes it.
                properties.insert("config-wce".into(), json!(false));
                // What qemu-storage-daemon has unless told otherwise; QEMU would ask for one per CPU.
                properties.insert("num-queues".into(), json!(1));
                "vhost-user-blk-pci"
            }
        };
        fail::fail_point!("vm::plugging");
        let bus = Some(port.to_owned());
        let add = DeviceAdd {
            driver: driver.into(),
            id: id.into(),
            bus,
            properties,
        };
        qmp.execute(&add, deadline).await?;
        fail::fail_point!("vm::plugged");
        let there = ports(&qmp, deadline).await?;
        let device = there
            .iter()
            .find(|(name, _)| name == port)
            .and_then(|(_, device)| device.as_ref());
        Ok(device.map(address).unwrap_or_default())
    }

    /// Takes `id` out and waits until the guest has let go.
    pub(crate) async fn unplug(&self, id: &str, deadline: Instant) -> Result<()> {
        let _using = self.using.lock().await;
        if is_gone(&self.monitor).await {
            tracing::info!(
                device = id,
                "the host's virtual machine does not run: nothing is plugged in"
            );
            return Ok(());
        }
        take_out(&self.connect(deadline).await?, id, deadline).await
    }

    /// How `id` is plugged in.
    pub(crate) async fn find(&self, id: &str, deadline: Instant) -> Result<Found> {
        let _using = self.using.lock().await;
        if is_gone(&self.monitor).await {
            return Ok(Found::Absent);
        }
        let qmp = self.connect(deadline).await?;
        let there = ports(&qmp, deadline).await?;
        let device = there
            .into_iter()
            .find_map(|(_, device)| device.filter(|device| device.qdev_id == id));
        Ok(match device {
            None => Found::Absent,
            Some(_) if is_dead(&qmp, id, deadline).await? => Found::Dead,
            Some(device) => Found::At(address(&device)),
        })
    }

    pub(crate) async fn functions(&self, deadline: Instant) -> Result<Vec<Function>> {
        let _using = self.using.lock().await;
        let there = if is_gone(&self.monitor).await {
            Vec::new()
        } else {
            ports(&self.connect(deadline).await?, deadline).await?
        };
        let functions = (0..).zip(&self.ports).map(|(physical, port)| {
            let device = there
                .iter()
                .find(|(name, _)| name == port)
                .and_then(|(_, device)| device.as_ref());
            Function {
                id: FunctionId {
                    port: 0,
                    physical,
                    r#virtual: None,
                },
                kinds: vec![ExposureKind::NvmeFunction, ExposureKind::VirtioBlkFunction],
                pci_address: device.map(address).unwrap_or_default(),
                occupied: device.is_some(),
            }
        });
        Ok(functions.collect())
    }
}

/// Takes `id` out and waits until the guest has let go.
async fn take_out(qmp: &Qmp, id: &str, deadline: Instant) -> Result<()> {
    let mut events = qmp.events();
    let asked = qmp.execute(&DeviceDel { id: id.into() }, deadline).await;
    fail::fail_point!("vm::unplugging");
    match asked {
        Err(QmpError::Refused { class, .. }) if class == "DeviceNotFound" => {}
        Err(error) if !error.says("already in the process of unplug") => {
            return Err(error.into());
        }
        _ => {
            let until = deadline.min(Instant::now() + RELEASE);
            let gone = events.wait_for(|event| event.is("DEVICE_DELETED", "device", id));
            if !matches!(tokio::time::timeout_at(until, gone).await, Ok(Ok(_))) {
                return Err(Error::Busy(not_let_go(qmp, id, deadline).await));
            }
        }
    }
    let node_name = id.into();
    let deleted = qmp.execute(&BlockdevDel { node_name }, deadline).await;
    unless(deleted, "Failed to find node")?;
    remove_chardev(qmp, id, deadline).await
}

async fn not_let_go(qmp: &Qmp, id: &str, deadline: Instant) -> String {
    let remedy = match is_dead(qmp, id, deadline).await {
        Ok(true) => {
            "its storage daemon has died with requests of the guest under way, which are never answered; restart the machine, and it gets \
             the disk anew"
        }
        _ => "unmount it there, then call again",
    };
    format!("device {id}: the guest has not let go of it yet; {remedy}")
}

async fn remove_chardev(qmp: &Qmp, id: &str, deadline: Instant) -> Result<()> {
    let remove = ChardevRemove { id: id.into() };
    unless(qmp.execute(&remove, deadline).await, "not found")
}

/// The socket behind the device has lost its server, for good.
async fn is_dead(qmp: &Qmp, id: &str, deadline: Instant) -> Result<bool> {
    let all = qmp.execute(&QueryChardev {}, deadline).await?;
    let mut dead = all.iter().filter(|chardev| chardev.is_disconnected());
    Ok(dead.any(|chardev| chardev.label == id))
}

/// Nobody listens: a machine that does not run holds nothing.
async fn is_gone(monitor: &Path) -> bool {
    let connected = tokio::net::UnixStream::connect(monitor).await;
    connected.is_err_and(|why| {
        matches!(
            why.kind(),
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
        )
    })
}

/// The bridges that have a name, and what is plugged into each.
async fn ports(qmp: &Qmp, deadline: Instant) -> Result<Vec<(String, Option<PciDevice>)>> {
    let buses = qmp.execute(&QueryPci {}, deadline).await?;
    let devices = buses.into_iter().flat_map(|bus| bus.devices);
    let bridges = devices.filter_map(|device| Some((device.qdev_id, device.pci_bridge?)));
    Ok(bridges
        .map(|(name, bridge)| (name, bridge.devices.into_iter().next()))
        .collect())
}

/// Behind a bridge that the guest has not set up the bus is 0.
fn address(device: &PciDevice) -> String {
    if device.bus == 0 {
        return String::new();
    }
    format!(
        "0000:{:02x}:{:02x}.{:x}",
        device.bus, device.slot, device.function
    )
}

fn unless<T>(result: std::result::Result<T, QmpError>, done: &str) -> Result<()> {
    match result {
        Err(error) if error.says(done) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}
