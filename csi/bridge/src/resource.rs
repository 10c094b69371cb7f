//! The kinds of objects: their names, what can be compared and changed, and what this bridge takes at all.

use proto::card::v1::{LocalDevice, Source};
use proto::opi::storage::v1::{
    AioVolume, NullVolume, NvmeController, NvmeNamespace, NvmeSubsystem, NvmeTransportType,
    PciEndpoint, QosLimit, QosVolume, VirtioBlk, nvme_controller_spec::Endpoint,
};
use proto::volume::v1::FunctionId;
use proto::volume::v1::exposure::Kind;
use uuid::Uuid;

use crate::card::{Error, Result, Shape};

/// A kind of object.
pub(crate) trait Resource:
    prost::Message + Default + Clone + PartialEq + Send + Sync + 'static
{
    /// Second last part of its names.
    const COLLECTION: &'static str;
    /// The collection of its parent.
    const PARENT: Option<&'static str>;
    /// Whether an id must be given.
    const OWN_ID: bool;
    fn name(&self) -> &str;
    fn set_name(&mut self, name: String);
    /// The first field in which a wish differs from another, by its name.
    fn differs(&self, other: &Self) -> Option<&'static str>;
    /// Takes over the field that `path` names from `other`; false: there is no such field.
    fn take_over(&mut self, other: &Self, path: &str) -> bool;
    /// Without what only answers have.
    fn wish(&mut self);
    /// Whether the wish alone is well formed and possible; what it refers to is looked at elsewhere.
    fn check(&self) -> Result<()>;
    /// Fields that may change while the object lives.
    fn changeable(field: &str) -> bool {
        let _ = field;
        false
    }
}

macro_rules! resource {
    ($kind:ty, $collection:literal, $parent:expr, $own:literal, $check:path, [$($field:ident),*], spec [$($inner:ident),*]
        $(, output $output:ident)* $(, changeable $change:literal)?) => {
        impl Resource for $kind {
            const COLLECTION: &'static str = $collection;
            const PARENT: Option<&'static str> = $parent;
            const OWN_ID: bool = $own;
            fn name(&self) -> &str {
                &self.name
            }
            fn set_name(&mut self, name: String) {
                self.name = name;
            }
            fn differs(&self, other: &Self) -> Option<&'static str> {
                $(if self.$field != other.$field {
                    return Some(stringify!($field));
                })*
                $({
                    let inner = |of: &Self| of.spec.clone().unwrap_or_default().$inner;
                    if inner(self) != inner(other) {
                        return Some(concat!("spec.", stringify!($inner)));
                    }
                })*
                None
            }
            fn take_over(&mut self, other: &Self, path: &str) -> bool {
                $(if path == stringify!($field) {
                    self.$field = other.$field.clone();
                    return true;
                })*
                $(if path == concat!("spec.", stringify!($inner)) {
                    let value = other.spec.clone().unwrap_or_default().$inner;
                    self.spec.get_or_insert_default().$inner = value;
                    return true;
                })*
                false
            }
            fn wish(&mut self) {
                $(self.$output = Default::default();)*
            }
            fn check(&self) -> Result<()> {
                $check(self)
            }
            $(fn changeable(field: &str) -> bool {
                field == $change
            })?
        }
    };
}

resource!(Source, "sources", None, true, check_source, [source, read_only, uuid], spec [],
    output state, output message, output size_bytes, output block_size);
resource!(LocalDevice, "localDevices", None, true, check_local, [volume_name_ref, exposure, read_only, serial], spec [],
    output device);
resource!(AioVolume, "aioVolumes", None, false, check_aio, [block_size, blocks_count, uuid, filename], spec []);
resource!(NullVolume, "nullVolumes", None, false, check_null, [block_size, blocks_count, uuid], spec []);
resource!(QosVolume, "qosVolumes", None, false, check_qos, [volume_name_ref, limits], spec [], changeable "limits");
resource!(VirtioBlk, "virtioBlks", None, false, check_virtio,
    [pcie_id, volume_name_ref, max_io_qps, min_limit, max_limit], spec []);
resource!(NvmeSubsystem, "nvmeSubsystems", None, false, check_subsystem, [],
    spec [nqn, serial_number, model_number, max_namespaces, hostnqn, psk], output status);
resource!(NvmeController, "nvmeControllers", Some("nvmeSubsystems"), false, check_controller, [],
    spec [nvme_controller_id, trtype, endpoint, max_nsq, max_ncq, sqes, cqes, max_namespaces, min_limit, max_limit],
    output status);
resource!(NvmeNamespace, "nvmeNamespaces", Some("nvmeSubsystems"), false, check_namespace, [],
    spec [host_nsid, nguid, eui64, uuid, volume_name_ref], output status);

fn invalid<T>(why: impl Into<String>) -> Result<T> {
    Err(Error::Invalid(why.into()))
}

fn unable<T>(why: impl Into<String>) -> Result<T> {
    Err(Error::Unable(why.into()))
}

/// A uuid in the form of RFC 9562, lower case.
pub(crate) fn uuid(field: &str, text: &str) -> Result<Uuid> {
    let parsed = Uuid::try_parse(text)
        .ok()
        .filter(|uuid| uuid.to_string() == text);
    parsed.ok_or_else(|| {
        Error::Invalid(format!(
            "{field}: {text:?} is not a uuid in lower case with hyphens"
        ))
    })
}

fn referred(name: &str) -> Result<()> {
    if name.is_empty() {
        return invalid(
            "volume_name_ref: must be given: the full name of a volume, such as sources/a",
        );
    }
    Ok(())
}

fn serial_fits(field: &str, serial: &str) -> Result<()> {
    if serial.len() > 20 || !serial.bytes().all(|b| b.is_ascii_graphic()) {
        return invalid(format!("{field}: at most 20 printable characters"));
    }
    Ok(())
}

fn check_source(source: &Source) -> Result<()> {
    if source
        .source
        .as_ref()
        .is_none_or(|source| source.kind.is_none())
    {
        return invalid("source: exactly one kind must be given");
    }
    uuid("uuid", &source.uuid).map(drop)
}

fn check_local(device: &LocalDevice) -> Result<()> {
    referred(&device.volume_name_ref)?;
    serial_fits("serial", &device.serial)?;
    local_shape(device).map(drop)
}

/// How a local device is to be seen.
pub(crate) fn local_shape(device: &LocalDevice) -> Result<Shape> {
    match device
        .exposure
        .as_ref()
        .and_then(|exposure| exposure.kind.as_ref())
    {
        Some(Kind::LocalBlockDevice(_)) => Ok(Shape::BlockDevice),
        Some(Kind::VhostUserBlk(socket)) => Ok(Shape::VhostUser(socket.queues)),
        Some(_) => invalid(
            "exposure: a local device is local_block_device or vhost_user_blk; functions are made by OPI's front ends",
        ),
        None => invalid("exposure: exactly one kind must be given"),
    }
}

/// The queues of the socket beside a block device, if one is wanted.
pub(crate) fn local_socket(device: &LocalDevice) -> Option<u32> {
    match device.exposure.as_ref()?.kind.as_ref()? {
        Kind::LocalBlockDevice(block) => block.socket.map(|socket| socket.queues),
        _ => None,
    }
}

fn check_aio(volume: &AioVolume) -> Result<()> {
    if !volume.filename.starts_with('/') {
        return invalid("filename: must be an absolute path");
    }
    if ![0, 512].contains(&volume.block_size) {
        return invalid("block_size: this card has blocks of 512 bytes");
    }
    if volume.blocks_count < 0 {
        return invalid("blocks_count: must not be negative");
    }
    optional_uuid(&volume.uuid)
}

fn optional_uuid(text: &str) -> Result<()> {
    if text.is_empty() {
        Ok(())
    } else {
        uuid("uuid", text).map(drop)
    }
}

fn check_null(volume: &NullVolume) -> Result<()> {
    if volume.block_size != 512 {
        return invalid("block_size: this card has blocks of 512 bytes");
    }
    if !(1..=1 << 50).contains(&volume.blocks_count) {
        return invalid("blocks_count: must be 1 to 2^50");
    }
    optional_uuid(&volume.uuid)
}

fn check_qos(volume: &QosVolume) -> Result<()> {
    referred(&volume.volume_name_ref)?;
    let limits = volume.limits.unwrap_or_default();
    if limits.min.is_some_and(|min| min != QosLimit::default()) {
        return unable("limits.min: this card has no guaranteed rates; leave it out");
    }
    let Some(max) = limits.max.filter(|max| *max != QosLimit::default()) else {
        return invalid("limits.max: at least one rate must be given");
    };
    let rates = [
        max.rd_iops_kiops,
        max.wr_iops_kiops,
        max.rw_iops_kiops,
        max.rd_bandwidth_mbs,
        max.wr_bandwidth_mbs,
        max.rw_bandwidth_mbs,
    ];
    if rates.iter().any(|rate| !(0..=1_000_000_000).contains(rate)) {
        return invalid("limits.max: rates must be 0 (none) to 10^9");
    }
    let both = |total: i64, one: i64, other: i64| total > 0 && (one > 0 || other > 0);
    if both(max.rw_iops_kiops, max.rd_iops_kiops, max.wr_iops_kiops)
        || both(
            max.rw_bandwidth_mbs,
            max.rd_bandwidth_mbs,
            max.wr_bandwidth_mbs,
        )
    {
        return invalid(
            "limits.max: a rate of both directions and one of a single direction exclude each other",
        );
    }
    Ok(())
}

/// The function of a PCI endpoint.
pub(crate) fn function(endpoint: Option<&PciEndpoint>) -> Result<FunctionId> {
    let Some(endpoint) = endpoint else {
        return invalid("pcie_id: must be given");
    };
    let number = |field: &str, value: Option<i32>| {
        let value = value.unwrap_or(0);
        u32::try_from(value)
            .map_err(|_| Error::Invalid(format!("pcie_id.{field}: must not be negative")))
    };
    let virtual_function = number("virtual_function", endpoint.virtual_function)?;
    Ok(FunctionId {
        port: number("port_id", endpoint.port_id)?,
        physical: number("physical_function", endpoint.physical_function)?,
        // OPI has 0 for the physical function itself.
        r#virtual: (virtual_function > 0).then_some(virtual_function),
    })
}

fn unlimited(limits: [Option<QosLimit>; 2]) -> Result<()> {
    if limits
        .iter()
        .flatten()
        .any(|limit| *limit != QosLimit::default())
    {
        return unable("limits of a function: this card limits volumes; make a QoS volume over it");
    }
    Ok(())
}

fn check_virtio(device: &VirtioBlk) -> Result<()> {
    referred(&device.volume_name_ref)?;
    function(device.pcie_id.as_ref())?;
    if device.max_io_qps != 0 {
        return unable("max_io_qps: this card chooses the number of queues; leave it out");
    }
    unlimited([device.min_limit, device.max_limit])
}

fn check_subsystem(subsystem: &NvmeSubsystem) -> Result<()> {
    let spec = subsystem.spec.clone().unwrap_or_default();
    if !spec.nqn.starts_with("nqn.") || spec.nqn.len() > 223 {
        return invalid("spec.nqn: must begin with nqn. and have at most 223 bytes");
    }
    serial_fits("spec.serial_number", &spec.serial_number)?;
    if !spec.model_number.is_empty() {
        return unable("spec.model_number: this card's is fixed; leave it out");
    }
    if ![0, 1].contains(&spec.max_namespaces) {
        return unable("spec.max_namespaces: this card's functions have one namespace");
    }
    if !spec.hostnqn.is_empty() || !spec.psk.is_empty() {
        return unable(
            "spec.hostnqn, spec.psk: this card has no fabrics; it exposes on PCI functions alone",
        );
    }
    Ok(())
}

fn check_controller(controller: &NvmeController) -> Result<()> {
    let spec = controller.spec.clone().unwrap_or_default();
    match (spec.trtype(), &spec.endpoint) {
        (NvmeTransportType::Pcie, Some(Endpoint::PcieId(endpoint))) => function(Some(endpoint))?,
        (NvmeTransportType::Pcie, _) => return invalid("spec.pcie_id: must be given"),
        (NvmeTransportType::Unspecified, _) => return invalid("spec.trtype: must be given"),
        _ => return unable("spec.trtype: this card exposes on PCI functions alone"),
    };
    let sizes = [spec.max_nsq, spec.max_ncq, spec.sqes, spec.cqes];
    if spec.nvme_controller_id.is_some_and(|id| id != 0) || sizes.iter().any(|size| *size != 0) {
        return unable(
            "spec: nvme_controller_id, max_nsq, max_ncq, sqes, cqes are fixed on this card; leave them out",
        );
    }
    if ![0, 1].contains(&spec.max_namespaces) {
        return unable("spec.max_namespaces: this card's functions have one namespace");
    }
    unlimited([spec.min_limit, spec.max_limit])
}

fn check_namespace(namespace: &NvmeNamespace) -> Result<()> {
    let spec = namespace.spec.clone().unwrap_or_default();
    referred(&spec.volume_name_ref)?;
    if ![0, 1].contains(&spec.host_nsid) {
        return unable("spec.host_nsid: this card's functions have the one namespace 1");
    }
    if spec.eui64 != 0 {
        return unable("spec.eui64: this card can't set it; leave it out");
    }
    optional_uuid(&spec.uuid)
}
