//! What the objects together want of a volume: pure.

use proto::card::v1::{LocalDevice, Source as SourceObject};
use proto::opi::storage::v1::{
    AioVolume, NullVolume, NvmeController, NvmeNamespace, NvmeSubsystem, QosLimit, QosVolume,
    VirtioBlk, nvme_controller_spec::Endpoint,
};
use proto::volume::v1::source::Kind;
use proto::volume::v1::{BlockDeviceSource, FileSource, FunctionId, Limits, Source, file_source};
use uuid::Uuid;

use crate::card::linux::serial;
use crate::card::{Error, Exposed, Medium, Result, Shape, Volume};
use crate::objects::{Objects, collection, parent};
use crate::resource::{self, Resource};

/// For volumes of OPI that were given no uuid: UUIDv5 of the name in this name space.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f75_7462_6f61_7264_8000_6f70_695f_766f);
/// QoS volumes over each other.
const DEPTH: usize = 8;

/// The volume at the bottom of a chain of QoS volumes.
pub(crate) fn base(objects: &Objects, name: &str) -> Result<String> {
    let mut name = name.to_owned();
    for _ in 0..DEPTH {
        match collection(&name) {
            Some("sources" | "aioVolumes" | "nullVolumes") if objects.is_there(&name) => {
                return Ok(name);
            }
            Some("qosVolumes") => match objects.get::<QosVolume>(&name) {
                Some(qos) => name = qos.wish.volume_name_ref,
                None => break,
            },
            _ => break,
        }
    }
    Err(Error::NotFound(format!("there is no volume {name}")))
}

/// The volume that an object is about, by its lowest name; none where it is about none yet (a controller without a namespace).
pub(crate) fn bases(objects: &Objects, name: &str) -> Vec<String> {
    let of = |reference: String| base(objects, &reference).into_iter().collect();
    match collection(name) {
        Some("sources" | "aioVolumes" | "nullVolumes" | "qosVolumes") => of(name.to_owned()),
        Some("nvmeControllers") => {
            let siblings = objects.all::<NvmeNamespace>();
            let siblings = siblings
                .into_iter()
                .filter(|n| parent(&n.wish.name) == parent(name));
            siblings
                .filter_map(|n| {
                    base(objects, &n.wish.spec.unwrap_or_default().volume_name_ref).ok()
                })
                .collect()
        }
        _ => reference(objects, name).map(of).unwrap_or_default(),
    }
}

/// What an exposing object refers to.
fn reference(objects: &Objects, name: &str) -> Option<String> {
    match collection(name)? {
        "localDevices" => Some(objects.get::<LocalDevice>(name)?.wish.volume_name_ref),
        "virtioBlks" => Some(objects.get::<VirtioBlk>(name)?.wish.volume_name_ref),
        "nvmeNamespaces" => Some(
            objects
                .get::<NvmeNamespace>(name)?
                .wish
                .spec?
                .volume_name_ref,
        ),
        "qosVolumes" => Some(objects.get::<QosVolume>(name)?.wish.volume_name_ref),
        _ => None,
    }
}

/// Objects that can't be without this one, by name.
pub(crate) fn users(objects: &Objects, name: &str) -> Vec<String> {
    let names = objects.names().into_iter().filter(|other| other != name);
    names
        .filter(|other| {
            parent(other) == Some(name) || reference(objects, other).as_deref() == Some(name)
        })
        .collect()
}

/// Who exposes the volume at `base`, though it may be being taken away.
pub(crate) fn exposers(objects: &Objects, base_name: &str) -> Vec<String> {
    let names = objects.names().into_iter();
    let exposing = names.filter(|name| {
        matches!(
            collection(name),
            Some("localDevices" | "virtioBlks" | "nvmeNamespaces")
        )
    });
    let leads_here = |name: &String| {
        reference(objects, name)
            .and_then(|reference| base(objects, &reference).ok())
            .as_deref()
            == Some(base_name)
    };
    exposing.filter(leads_here).collect()
}

/// Functions that are taken, with the object that has each.
pub(crate) fn functions(objects: &Objects) -> Vec<(FunctionId, String)> {
    let controllers = objects.all::<NvmeController>().into_iter();
    let controllers = controllers
        .filter_map(|object| Some((controller_function(&object.wish)?, object.wish.name)));
    let blks = objects.all::<VirtioBlk>().into_iter();
    let blks = blks.filter_map(|object| {
        Some((
            resource::function(object.wish.pcie_id.as_ref()).ok()?,
            object.wish.name,
        ))
    });
    controllers.chain(blks).collect()
}

pub(crate) fn controller_function(controller: &NvmeController) -> Option<FunctionId> {
    match controller.spec.as_ref()?.endpoint.as_ref()? {
        Endpoint::PcieId(endpoint) => resource::function(Some(endpoint)).ok(),
        Endpoint::FabricsId(_) => None,
    }
}

/// All that is wanted of the volume at `base`. Of objects that are being taken away only `with` counts.
pub(crate) fn volume(objects: &Objects, base_name: &str, with: Option<&str>) -> Result<Volume> {
    let (medium, read_only, uuid, mut limits) = bottom(objects, base_name)
        .ok_or_else(|| Error::NotFound(format!("there is no volume {base_name}")))?;
    for qos in objects.all::<QosVolume>() {
        let counts =
            qos.deleting.is_none() && base(objects, &qos.wish.name).as_deref() == Ok(base_name);
        if counts {
            let max = qos
                .wish
                .limits
                .and_then(|limits| limits.max)
                .unwrap_or_default();
            limits = stricter(&stricter(&limits, &in_full(&max)), &qos.limits);
        }
    }
    let counts = |name: &str| with == Some(name) || objects.deleting(name).is_none();
    let exposers = exposers(objects, base_name)
        .into_iter()
        .filter(|name| counts(name));
    // Of a namespace that is being taken away the controller matters though it is, too.
    let controller = |name: &str| with.is_some() || counts(name);
    let mut exposed = exposers.filter_map(|name| exposed(objects, &name, uuid, &controller));
    let exposed = exposed.next();
    Ok(Volume {
        uuid,
        medium,
        read_only,
        limits,
        exposed,
    })
}

fn bottom(objects: &Objects, name: &str) -> Option<(Medium, bool, Uuid, Limits)> {
    let given = |text: &str| {
        Uuid::try_parse(text).unwrap_or_else(|_| Uuid::new_v5(&NAMESPACE, name.as_bytes()))
    };
    match collection(name)? {
        "sources" => {
            let object = objects.get::<SourceObject>(name)?;
            let uuid = given(&object.wish.uuid);
            Some((
                Medium::Source(object.wish.source?),
                object.wish.read_only,
                uuid,
                object.limits,
            ))
        }
        "aioVolumes" => {
            let object = objects.get::<AioVolume>(name)?;
            let uuid = given(&object.wish.uuid);
            Some((
                Medium::Source(aio(object.wish.filename)),
                false,
                uuid,
                object.limits,
            ))
        }
        "nullVolumes" => {
            let object = objects.get::<NullVolume>(name)?;
            let bytes = u64::try_from(object.wish.blocks_count).unwrap_or(0) * 512;
            Some((
                Medium::Null(bytes),
                false,
                given(&object.wish.uuid),
                object.limits,
            ))
        }
        _ => None,
    }
}

/// A device file or raw bytes.
fn aio(path: String) -> Source {
    use std::os::unix::fs::FileTypeExt;
    let is_device = std::fs::metadata(&path).is_ok_and(|about| about.file_type().is_block_device());
    let kind = if is_device {
        Kind::BlockDevice(BlockDeviceSource { path })
    } else {
        Kind::File(FileSource {
            path,
            format: file_source::Format::Raw.into(),
        })
    };
    Source { kind: Some(kind) }
}

/// The uuid that a volume's objects bear.
pub(crate) fn uuid_of(objects: &Objects, base_name: &str) -> Option<Uuid> {
    bottom(objects, base_name).map(|(_, _, uuid, _)| uuid)
}

fn exposed(
    objects: &Objects,
    name: &str,
    uuid: Uuid,
    counts: &impl Fn(&str) -> bool,
) -> Option<Exposed> {
    let by = name.to_owned();
    let chosen = |given: String| {
        if given.is_empty() {
            serial(uuid)
        } else {
            given
        }
    };
    match collection(name)? {
        "localDevices" => {
            let device = objects.get::<LocalDevice>(name)?.wish;
            let shape = resource::local_shape(&device).ok()?;
            Some(Exposed {
                by,
                shape,
                socket: resource::local_socket(&device),
                read_only: device.read_only,
                serial: chosen(device.serial),
            })
        }
        "virtioBlks" => {
            let device = objects.get::<VirtioBlk>(name)?.wish;
            let shape = Shape::VirtioBlk(resource::function(device.pcie_id.as_ref()).ok()?);
            Some(Exposed {
                by,
                shape,
                socket: None,
                read_only: false,
                serial: serial(uuid),
            })
        }
        "nvmeNamespaces" => {
            let subsystem = objects.get::<NvmeSubsystem>(parent(name)?)?.wish;
            let controllers = objects
                .all::<NvmeController>()
                .into_iter()
                .map(|object| object.wish);
            let mut ours =
                controllers.filter(|c| parent(c.name()) == parent(name) && counts(c.name()));
            let shape = Shape::Nvme(controller_function(&ours.next()?)?);
            let serial = chosen(subsystem.spec.unwrap_or_default().serial_number);
            Some(Exposed {
                by,
                shape,
                socket: None,
                read_only: false,
                serial,
            })
        }
        _ => None,
    }
}

/// OPI counts in thousands of requests and in megabytes.
fn in_full(limit: &QosLimit) -> Limits {
    let rate = |value: i64, unit: u64| u64::try_from(value).unwrap_or(0) * unit;
    Limits {
        iops: rate(limit.rw_iops_kiops, 1_000),
        read_iops: rate(limit.rd_iops_kiops, 1_000),
        write_iops: rate(limit.wr_iops_kiops, 1_000),
        bytes: rate(limit.rw_bandwidth_mbs, 1_000_000),
        read_bytes: rate(limit.rd_bandwidth_mbs, 1_000_000),
        write_bytes: rate(limit.wr_bandwidth_mbs, 1_000_000),
    }
}

/// The smaller of each, where 0 is none. A throttle group has either one rate for both directions or one for each: where both are
/// wanted, the one for both is given to each direction.
fn stricter(one: &Limits, other: &Limits) -> Limits {
    let least = |a: u64, b: u64| if a == 0 || b == 0 { a.max(b) } else { a.min(b) };
    let pair = |total: u64, read: u64, write: u64| {
        if total > 0 && (read > 0 || write > 0) {
            (0, least(total, read), least(total, write))
        } else {
            (total, read, write)
        }
    };
    let (iops, read_iops, write_iops) = pair(
        least(one.iops, other.iops),
        least(one.read_iops, other.read_iops),
        least(one.write_iops, other.write_iops),
    );
    let (bytes, read_bytes, write_bytes) = pair(
        least(one.bytes, other.bytes),
        least(one.read_bytes, other.read_bytes),
        least(one.write_bytes, other.write_bytes),
    );
    Limits {
        iops,
        read_iops,
        write_iops,
        bytes,
        read_bytes,
        write_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stricter_limit_holds_in_each_direction() {
        let total = Limits {
            iops: 100,
            bytes: 5,
            ..Limits::default()
        };
        let read = Limits {
            read_iops: 40,
            ..Limits::default()
        };
        let both = stricter(&total, &read);
        assert_eq!(
            (both.iops, both.read_iops, both.write_iops, both.bytes),
            (0, 40, 100, 5)
        );
        assert_eq!(stricter(&total, &Limits::default()), total);
        let kilo = in_full(&QosLimit {
            rw_iops_kiops: 2,
            rd_bandwidth_mbs: 3,
            ..QosLimit::default()
        });
        assert_eq!((kilo.iops, kilo.read_bytes), (2_000, 3_000_000));
    }
}
