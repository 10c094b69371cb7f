//! What a volume's daemon exports: a pure function of what is wanted.

use std::path::{Path, PathBuf};

use qemu::Step;
use qemu::commands::{Address, BlockExportAdd, Export, NbdServerStart};
use uuid::Uuid;

use super::recipe::{Places, TOP, step};
use super::serial::serial;
use super::socket;
use crate::card::{Error, Exposed, Result, Shape, Volume};

/// The id of the card's export of a volume.
pub(crate) fn export_id(uuid: Uuid) -> String {
    format!("card-{}", serial(uuid))
}

/// The ids of all exports that the card may have of a volume: the second one is the socket beside a block device.
pub(crate) fn ids(uuid: Uuid) -> [String; 2] {
    let id = export_id(uuid);
    let socket = format!("{id}-vhost");
    [id, socket]
}

/// The commands that export [`TOP`] as wanted.
pub(crate) fn exports(volume: &Volume, places: &Places, dir: &Path) -> Result<Vec<Step>> {
    let Some(exposed) = &volume.exposed else {
        return Ok(Vec::new());
    };
    let [id, beside] = ids(volume.uuid);
    let mut steps = Vec::new();
    let kind = match &exposed.shape {
        Shape::BlockDevice => Export::Fuse {
            mountpoint: places.file(volume.uuid),
            growable: None,
            allow_other: None,
        },
        Shape::VhostUser(queues) => vhost_user(places.socket(volume.uuid), *queues)?,
        Shape::VirtioBlk(_) => vhost_user(places.socket(volume.uuid), 0)?,
        Shape::Nvme(_) => {
            steps.push(step(&NbdServerStart {
                addr: Address::Unix {
                    path: dir.join("nbd.sock"),
                },
                tls_creds: None,
                tls_authz: None,
                max_connections: Some(0),
            })?);
            Export::Nbd {
                name: Some(id.clone()),
            }
        }
    };
    let through = matches!(exposed.shape, Shape::VhostUser(_));
    steps.push(add(id, kind, volume, exposed, through)?);
    if let Some(queues) = exposed.socket {
        let kind = vhost_user(socket::path(places, volume.uuid)?, queues)?;
        // Its machines are libvirt's with our sidecar, which has the guest flush by itself.
        steps.push(add(beside, kind, volume, exposed, false)?);
    }
    Ok(steps)
}

/// The vhost-user sockets among them.
pub(crate) fn sockets(volume: &Volume, places: &Places) -> Result<Vec<PathBuf>> {
    let Some(exposed) = &volume.exposed else {
        return Ok(Vec::new());
    };
    let own = matches!(exposed.shape, Shape::VhostUser(_) | Shape::VirtioBlk(_));
    let mut sockets: Vec<_> = own
        .then(|| places.socket(volume.uuid))
        .into_iter()
        .collect();
    if exposed.socket.is_some() {
        sockets.push(socket::path(places, volume.uuid)?);
    }
    Ok(sockets)
}

/// `through`: every write is on the disk when it is answered. Who connects to a socket may take the disk for one that writes through,
/// and never flush it: the export offers VIRTIO_BLK_F_CONFIG_WCE and says that the cache is off. With QEMU's `config-wce=off` the guest
/// is not offered that and flushes by itself; vm.rs and the sidecar `vhostuser-shim` set it.
fn add(
    id: String,
    kind: Export,
    volume: &Volume,
    exposed: &Exposed,
    through: bool,
) -> Result<Step> {
    step(&BlockExportAdd {
        id,
        node_name: TOP.into(),
        kind,
        writable: Some(!exposed.read_only && !volume.read_only),
        writethrough: through.then_some(true),
        iothread: None,
    })
}

fn vhost_user(path: PathBuf, queues: u32) -> Result<Export> {
    let num_queues =
        match queues {
            0 => None,
            queues => Some(u16::try_from(queues).map_err(|_| {
                Error::Invalid("exposure.vhost_user_blk.queues: at most 65535".into())
            })?),
        };
    Ok(Export::VhostUserBlk {
        addr: Address::Unix { path },
        logical_block_size: None,
        num_queues,
    })
}
