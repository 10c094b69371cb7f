//! What stands on a volume's export: the host's end.

use engine::Daemon;
use proto::volume::v1::Device;
use proto::volume::v1::device::Address;
use tokio::time::Instant;
use uuid::Uuid;

use super::serial::serial;
use super::vm::Plug;
use super::{BLOCK, Linux, exports, loops, socket};
use crate::card::{Error, Exposed, Result, Shape, Volume};

impl Linux {
    fn plug(&self, volume: &Volume, exposed: &Exposed, daemon: &Daemon) -> Plug {
        match exposed.shape {
            Shape::Nvme(_) => Plug::Nvme {
                socket: daemon.nbd_socket(),
                export: exports::export_id(volume.uuid),
                serial: exposed.serial.clone(),
                read_only: exposed.read_only || volume.read_only,
            },
            _ => Plug::VirtioBlk(self.places.socket(volume.uuid)),
        }
    }

    pub(super) fn device(
        &self,
        volume: &Volume,
        exposed: &Exposed,
        size: u64,
        address: Address,
        socket: Option<std::path::PathBuf>,
    ) -> Device {
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
            vhost_user_socket: socket.map(text).unwrap_or_default(),
        }
    }

    /// What stands on the export, made or found.
    pub(super) async fn stand(
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
        fail::fail_point!("card::standing");
        let beside = match exposed.socket {
            Some(_) => Some(socket::open(&self.places, volume.uuid).await?),
            None => None,
        };
        Ok(self.device(volume, exposed, size, address, beside))
    }
}

/// Of device, node and character device in the virtual machine.
pub(super) fn vm_id(uuid: Uuid) -> String {
    format!("ob-{}", serial(uuid))
}

pub(super) fn text(path: impl AsRef<std::path::Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}
