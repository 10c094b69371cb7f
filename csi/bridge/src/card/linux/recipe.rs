//! What a volume's daemon shall do: a pure function of what is wanted, and of the certificates that lie there.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use engine::Recipe;
use proto::volume::v1::file_source::Format;
use proto::volume::v1::nbd_source::Address as NbdAddress;
use proto::volume::v1::source::Kind;
use proto::volume::v1::{Limits, NbdSource};
use qemu::Step;
use qemu::commands::{
    Address, Aio, BlockdevAdd, Driver, Endpoint, Node, Object, ObjectAdd, QomSet,
};
use uuid::Uuid;

use super::credentials::{self, Named};
use super::exports::{exports, ids};
use crate::card::{Error, Medium, Result, Volume};

/// The node that exports take: in daemons of ours a throttle filter, in a back end's by its own convention.
pub(crate) const TOP: &str = "top";
/// The node of the bytes, below [`TOP`]; an NBD client's with TLS has a tag at its end.
pub(crate) const DISK: &str = "disk";
const LIMITS: &str = "limits";
/// Seconds for which requests wait for a lost NBD server unless the source says otherwise.
const RECONNECT: u32 = 30;
/// Seconds for which opening an NBD export tries.
const OPEN: u32 = 2;

/// Where things lie on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Mount points and sockets of exports.
    pub(crate) exports: PathBuf,
    /// Directories of credentials.
    pub(crate) credentials: PathBuf,
    /// How files and devices are read and written.
    pub(crate) aio: Aio,
    /// This machine's name in [`proto::volume::v1::EngineSource`].
    pub(crate) node: String,
    /// Who may connect to sockets beside block devices.
    pub(crate) vhost_gid: u32,
}

impl Places {
    /// The file that a FUSE export is mounted on.
    pub(crate) fn file(&self, uuid: Uuid) -> PathBuf {
        self.exports.join(uuid.to_string())
    }

    /// The socket of a vhost-user export.
    pub(crate) fn socket(&self, uuid: Uuid) -> PathBuf {
        self.exports.join(format!("{uuid}.sock"))
    }

    /// The directory of the socket beside a block device.
    pub(crate) fn vhost_directory(&self, uuid: Uuid) -> PathBuf {
        self.exports.join(format!("{uuid}.vhost"))
    }
}

/// The engine's id of the daemon of a volume, and whether it is ours.
pub(crate) fn daemon_of(volume: &Volume) -> (String, bool) {
    match &volume.medium {
        Medium::Source(source) => match &source.kind {
            Some(Kind::Engine(engine)) => (engine.engine_id.clone(), false),
            _ => (own_daemon(volume.uuid), true),
        },
        Medium::Null(_) => (own_daemon(volume.uuid), true),
    }
}

fn own_daemon(uuid: Uuid) -> String {
    format!("c-{uuid}")
}

/// The volume of a daemon of ours.
pub(crate) fn volume_of(daemon: &str) -> Option<Uuid> {
    daemon.strip_prefix("c-")?.parse().ok()
}

/// All of a daemon of ours. `dir` is the daemon's.
pub(crate) fn own(volume: &Volume, places: &Places, dir: &Path) -> Result<Recipe> {
    let mut steps = Vec::new();
    let mut disk = match &volume.medium {
        Medium::Null(size) => Node::new(DISK, Driver::NullCo { size: *size }),
        Medium::Source(source) => match &source.kind {
            Some(Kind::Nbd(nbd)) => nbd_node(nbd, places, &mut steps)?,
            Some(Kind::File(file)) => {
                let path = absolute("source.file.path", &file.path)?;
                match file.format() {
                    Format::Raw => Node::file(DISK, path).direct().aio(places.aio).thin(),
                    Format::Qcow2 => {
                        let mut file = Node::file("file", path).direct().aio(places.aio).thin();
                        file.detect_zeroes = None;
                        Node::qcow2(DISK, file).thin()
                    }
                    Format::Unspecified => {
                        return Err(Error::Invalid(
                            "source.file.format: must be given, raw or qcow2; it is never guessed"
                                .into(),
                        ));
                    }
                }
            }
            Some(Kind::BlockDevice(device)) => {
                let filename = absolute("source.block_device.path", &device.path)?;
                let driver = Driver::HostDevice {
                    filename,
                    aio: None,
                };
                Node::new(DISK, driver).direct().aio(places.aio).thin()
            }
            Some(Kind::Nvmeof(_)) => {
                return Err(Error::Unable(
                    "the linux card has no NVMe-oF sources: this kernel's nvme-fabrics is not used; export the volume by NBD".into(),
                ));
            }
            Some(Kind::Engine(_)) | None => {
                return Err(Error::Invalid(
                    "source: exactly one kind must be given".into(),
                ));
            }
        },
    };
    if volume.read_only {
        disk = disk.read_only();
    }
    let group = Object::ThrottleGroup {
        limits: limits(&volume.limits),
    };
    steps.push(step(&ObjectAdd {
        id: LIMITS.into(),
        object: group,
    })?);
    let below = disk.node_name.clone().unwrap_or_default();
    steps.push(step(&BlockdevAdd(disk))?);
    let mut top = Node::throttle(TOP, LIMITS, &*below);
    if volume.read_only {
        top = top.read_only();
    }
    steps.push(step(&BlockdevAdd(top))?);
    steps.extend(exports(volume, places, dir)?);
    Ok(steps.into_iter().collect())
}

/// A back end's recipe with the card's export in it as it is wanted. Only its exports are ours to change.
pub(crate) fn joined(
    recipe: &Recipe,
    volume: &Volume,
    places: &Places,
    dir: &Path,
) -> Result<Recipe> {
    let ours = ids(volume.uuid);
    let is_ours = |id: &str| ours.iter().any(|ours| ours == id);
    let theirs = recipe
        .steps()
        .iter()
        .filter(|step| step.execute != "block-export-add" || !step.object().is_some_and(is_ours));
    Ok(theirs
        .cloned()
        .chain(exports(volume, places, dir)?)
        .collect())
}

/// Makes the limits hold in a running daemon of ours.
pub(crate) fn set_limits(wanted: &Limits) -> QomSet {
    QomSet::limits(LIMITS, &limits(wanted))
}

fn limits(wanted: &Limits) -> qemu::commands::Limits {
    let some = |value: u64| (value > 0).then_some(value);
    qemu::commands::Limits {
        iops_total: some(wanted.iops),
        iops_read: some(wanted.read_iops),
        iops_write: some(wanted.write_iops),
        bps_total: some(wanted.bytes),
        bps_read: some(wanted.read_bytes),
        bps_write: some(wanted.write_bytes),
        ..Default::default()
    }
}

/// The NBD client, after the credentials that it needs.
fn nbd_node(nbd: &NbdSource, places: &Places, steps: &mut Vec<Step>) -> Result<Node> {
    let named = credentials::of(nbd, places)?;
    if let Some(named) = &named {
        let object = Object::TlsCredsX509 {
            endpoint: Endpoint::Client,
            dir: named.dir.clone(),
            verify_peer: Some(true),
        };
        steps.push(step(&ObjectAdd {
            id: named.tls.clone(),
            object,
        })?);
    }
    let disk = named.as_ref().map_or(DISK, |named| &named.disk);
    client(disk, nbd, named.as_ref())
}

/// The same under a name of its own, with the credentials of a daemon that is as its recipe says: to ask for the size.
pub(crate) fn nbd_client(name: &str, nbd: &NbdSource, places: &Places) -> Result<Node> {
    client(name, nbd, credentials::of(nbd, places)?.as_ref())
}

fn client(name: &str, nbd: &NbdSource, named: Option<&Named>) -> Result<Node> {
    let server = match &nbd.address {
        Some(NbdAddress::Tcp(tcp)) => Address::Inet {
            host: tcp.ip.clone(),
            port: tcp.port.to_string(),
        },
        Some(NbdAddress::UnixPath(path)) => Address::Unix {
            path: absolute("source.nbd.unix_path", path)?,
        },
        None => return Err(Error::Invalid("source.nbd.address: must be given".into())),
    };
    let reconnect = match nbd.reconnect_delay_seconds {
        0 => RECONNECT,
        seconds => seconds,
    };
    let driver = Driver::Nbd {
        server,
        export: (!nbd.export_name.is_empty()).then(|| nbd.export_name.clone()),
        tls_creds: named.map(|named| named.tls.clone()),
        tls_hostname: nbd
            .tls
            .as_ref()
            .map(|tls| tls.server_name.clone())
            .filter(|name| !name.is_empty()),
        reconnect_delay: Some(reconnect),
        open_timeout: Some(OPEN),
    };
    let mut node = Node::new(name, driver);
    node.discard = Some(qemu::commands::Discard::Unmap);
    Ok(node)
}

/// Whether a source is well formed, and what it needs is there.
pub(crate) fn check(medium: &Medium, places: &Places) -> Result<()> {
    let Medium::Source(source) = medium else {
        return Ok(());
    };
    match &source.kind {
        None => Err(Error::Invalid(
            "source: exactly one kind must be given".into(),
        )),
        Some(Kind::Engine(engine)) => {
            if engine.engine_id.is_empty() {
                return Err(Error::Invalid(
                    "source.engine.engine_id: must be given".into(),
                ));
            }
            if engine.node_name == places.node {
                return Ok(());
            }
            Err(Error::Precondition(format!(
                "source.engine: daemon {} runs on node {:?}, this card on {:?}; export the volume by NBD",
                engine.engine_id, engine.node_name, places.node
            )))
        }
        Some(Kind::Nbd(nbd)) => check_nbd(nbd, places),
        Some(_) => Ok(()),
    }
}

fn check_nbd(nbd: &NbdSource, places: &Places) -> Result<()> {
    if nbd.export_name.len() > 4096 {
        return Err(Error::Invalid(
            "source.nbd.export_name: at most 4096 bytes".into(),
        ));
    }
    let local = match &nbd.address {
        Some(NbdAddress::Tcp(tcp)) => {
            let ip: IpAddr = tcp.ip.parse().map_err(|_| {
                Error::Invalid(format!(
                    "source.nbd.address.tcp.ip: {:?} is not an IP address",
                    tcp.ip
                ))
            })?;
            if !(1..=65535).contains(&tcp.port) {
                return Err(Error::Invalid(
                    "source.nbd.address.tcp.port: must be 1 to 65535".into(),
                ));
            }
            ip.is_loopback()
        }
        _ => true,
    };
    let Some(tls) = &nbd.tls else {
        return if local {
            Ok(())
        } else {
            Err(Error::Invalid(
                "source.nbd.tls: must be given: plain text is for unix sockets and loopback alone"
                    .into(),
            ))
        };
    };
    let name = &tls.credentials;
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(Error::Invalid(
            "source.nbd.tls.credentials: must be one path component".into(),
        ));
    }
    let dir = places.credentials.join(name);
    for file in credentials::FILES {
        if !dir.join(file).is_file() {
            return Err(Error::NotFound(format!(
                "source.nbd.tls.credentials: {} is missing; put the credentials there",
                dir.join(file).display()
            )));
        }
    }
    Ok(())
}

fn absolute(field: &str, path: &str) -> Result<PathBuf> {
    let path = PathBuf::from(path);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(Error::Invalid(format!("{field}: must be an absolute path")))
    }
}

pub(super) fn step<C: qemu::Command>(command: &C) -> Result<Step> {
    Ok(command.step()?)
}
