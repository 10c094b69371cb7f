//! Which disk is the volume? Exactly one that says so itself, or none.

use std::path::Path;

use uuid::Uuid;

use super::super::request::{PciAddress, Place, Published};
use super::sysfs::{Numbers, Sysfs, names, read};

/// What the kernel appends to the path of a loop device whose file was deleted.
const DELETED: &str = " (deleted)";
/// What qemu-storage-daemon answers as the serial of every vhost-user disk.
const NO_SERIAL: [&str; 2] = ["", "vhost_user_blk"];

/// A disk that is the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its name in /dev and sysfs.
    pub(crate) name: String,
    /// Its device numbers.
    pub(crate) numbers: Numbers,
    /// Its size.
    pub(crate) bytes: u64,
    /// The disk itself says which volume it is. If not, only its address and size speak for it.
    pub(crate) proven: bool,
}

/// Why there is no such disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// It may still come. What was seen.
    Absent(String),
    /// Waiting does not help.
    Refused(String),
}

/// Finds the disk of `wanted`.
pub(crate) fn find(sysfs: &Sysfs, wanted: &Published) -> Result<Found, Miss> {
    let (names, proven) = match &wanted.place {
        Place::Loop(path) => (loops(sysfs, path)?, true),
        Place::Nvme(address) => (nvme(sysfs, address, wanted)?, true),
        Place::VirtioBlk(address) => virtio(sysfs, address, wanted)?,
    };
    let [name] = names.as_slice() else {
        return match names.as_slice() {
            [] => Err(Miss::Absent(format!("there is no {}", wanted.place))),
            several => Err(Miss::Refused(format!(
                "{} disks say that they are volume {}: {}; none is used until one is left. Detach the \
                 volume from this node, and see which of them stays",
                several.len(),
                wanted.uuid,
                several.join(", ")
            ))),
        };
    };
    let gone = || Miss::Absent(format!("{name} went away while it was looked at"));
    let numbers = sysfs.numbers(name).ok_or_else(gone)?;
    let bytes = sysfs.bytes(name).ok_or_else(gone)?;
    if bytes < wanted.bytes {
        return Err(Miss::Absent(format!(
            "{name} has {bytes} bytes, the volume {}",
            wanted.bytes
        )));
    }
    Ok(Found {
        name: name.clone(),
        numbers,
        bytes,
        proven,
    })
}

fn loops(sysfs: &Sysfs, path: &Path) -> Result<Vec<String>, Miss> {
    let path = path.to_string_lossy();
    let mut found = Vec::new();
    let mut dead = None;
    for name in sysfs.disks("loop") {
        let Some(file) = sysfs.attribute(&name, "loop/backing_file") else {
            continue;
        };
        if file == path {
            // A loop device whose file has no size is what a dead export leaves.
            match sysfs.bytes(&name) {
                Some(1..) => found.push(name),
                _ => {
                    dead = Some(format!(
                        "{name} over {path} has size 0: its export has ended"
                    ));
                }
            }
        } else if file.strip_suffix(DELETED) == Some(&path) {
            dead = Some(format!("the file of {name}, {path}, was deleted"));
        }
    }
    // One that was detached stays until whoever has it open lets go of it. Beside it none is used: it could be mounted.
    let detached = |name: &&String| {
        let flag = sysfs.attribute(name, "loop/autoclear");
        flag.as_deref() == Some("1")
    };
    let leaving: Vec<_> = found.iter().filter(detached).cloned().collect();
    match dead {
        Some(dead) if found.is_empty() => Err(Miss::Absent(dead)),
        _ if found.len() > 1 && leaving.len() + 1 == found.len() => Err(Miss::Absent(format!(
            "{} over {path} was detached, and somebody has it open still",
            leaving.join(", ")
        ))),
        _ => Ok(found),
    }
}

fn nvme(sysfs: &Sysfs, address: &PciAddress, wanted: &Published) -> Result<Vec<String>, Miss> {
    let mut found = Vec::new();
    let mut other = None;
    for name in sysfs.disks("nvme") {
        // `nvme0c1n1` is a path of a multipath disk, not a disk.
        if sysfs.attribute(&name, "hidden").as_deref() == Some("1") {
            continue;
        }
        let ours = nvme_uuid(sysfs, &name) == Some(wanted.uuid);
        let device = sysfs.disk(&name).join("device");
        let here = controllers(&device)
            .iter()
            .any(|a| *a == address.to_string());
        let serial = read(&device.join("serial")).is_some_and(|s| s == wanted.serial);
        match (ours, here, serial) {
            (true, true, true) => found.push(name),
            (false, true, _) => {
                other = Some(format!("{name} at {address} is another volume's disk"));
            }
            (true, false, _) => other = Some(format!("{name} is the volume, but not at {address}")),
            (true, true, false) => {
                other = Some(format!("{name} at {address} has another serial number"));
            }
            (false, false, _) => {}
        }
    }
    match other {
        Some(other) if found.is_empty() => Err(Miss::Absent(other)),
        _ => Ok(found),
    }
}

/// The PCI addresses of a namespace's controllers: `device` is the one controller, or the subsystem of several.
fn controllers(device: &Path) -> Vec<String> {
    if let Some(address) = read(&device.join("address")) {
        return vec![address];
    }
    let controllers = names(device)
        .into_iter()
        .filter(|name| name.starts_with("nvme"));
    controllers
        .filter_map(|name| read(&device.join(name).join("address")))
        .collect()
}

fn nvme_uuid(sysfs: &Sysfs, name: &str) -> Option<Uuid> {
    let parse = |attribute| {
        let uuid = Uuid::try_parse(&sysfs.attribute(name, attribute)?).ok()?;
        (!uuid.is_nil()).then_some(uuid)
    };
    let uuid = parse("uuid");
    let nguid = parse("nguid");
    match (uuid, nguid) {
        (Some(uuid), Some(nguid)) if uuid != nguid => None,
        (uuid, nguid) => uuid.or(nguid),
    }
}

fn virtio(
    sysfs: &Sysfs,
    address: &PciAddress,
    wanted: &Published,
) -> Result<(Vec<String>, bool), Miss> {
    let mut found = Vec::new();
    let mut proven = true;
    for device in names(&sysfs.pci(address)) {
        if !device.starts_with("virtio") {
            continue;
        }
        for name in names(&sysfs.pci(address).join(device).join("block")) {
            let serial = sysfs.attribute(&name, "serial").unwrap_or_default();
            if serial == wanted.serial {
                found.push(name);
            } else if NO_SERIAL.contains(&serial.as_str()) {
                proven = false;
                found.push(name);
            } else {
                return Err(Miss::Absent(format!(
                    "{name} at {address} is another volume's disk: its serial number is {serial}"
                )));
            }
        }
    }
    Ok((found, proven))
}

/// The volume that a disk says it is; `None`: it does not say. A loop device says it by a file in `exports`.
pub(crate) fn uuid_of(sysfs: &Sysfs, exports: &Path, name: &str) -> Option<Uuid> {
    if name.starts_with("nvme") {
        return nvme_uuid(sysfs, name);
    }
    let file = sysfs.attribute(name, "loop/backing_file")?;
    let file = Path::new(file.strip_suffix(DELETED).unwrap_or(&file));
    (file.parent() == Some(exports)).then(|| Uuid::try_parse(file.file_name()?.to_str()?).ok())?
}

/// The disks that say that they are this volume.
pub(crate) fn disks_of(sysfs: &Sysfs, exports: &Path, volume: Uuid) -> Vec<Numbers> {
    let disks = ["loop", "nvme"]
        .into_iter()
        .flat_map(|kind| sysfs.disks(kind));
    disks
        .filter(|name| uuid_of(sysfs, exports, name) == Some(volume))
        .filter_map(|name| sysfs.numbers(&name))
        .collect()
}

#[cfg(test)]
#[path = "find_tests.rs"]
mod tests;
