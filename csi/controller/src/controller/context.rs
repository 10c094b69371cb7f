//! `publish_context`: how csi-node-host finds the disk. Constant as long as the volume is published there.
//!
//! | key | value |
//! |---|---|
//! | `uuid` | the volume's UUID |
//! | `serial` | 20 characters, base32 of the UUID's first 100 bits |
//! | `kind` | `loop`, `nvme`, `virtio-blk` |
//! | `address` | `loop`: the file of the volume in the card's directory of exports, by which the loop device is found (its own
//! number changes when it is made again); else the PCI address as the host sees it |
//! | `size` | bytes when it was published |
//! | `fresh` | `true`: nothing was ever written to it, so a file system may be made; else `false` |
//! | `vhost-user-socket` | directory of its vhost-user-blk socket as the host sees it; not there if it has none |

use std::collections::BTreeMap;
use std::path::Path;

use api::storage::{VHOST_SOCKET, publish_context as key, vhost_directory};
use framework::Volume;
use proto::volume::v1::device::Address;
use proto::volume::v1::{Device, ExposureKind};
use tonic::Status;

use crate::nodes::Node;
use crate::status::Answer;

/// What csi-node-host understands, in order of preference.
pub(super) const ACCEPTABLE: [ExposureKind; 3] = [
    ExposureKind::NvmeFunction,
    ExposureKind::VirtioBlkFunction,
    ExposureKind::LocalBlockDevice,
];

/// The context of a volume that was attached.
///
/// # Errors
/// UNAVAILABLE: csi-node-dpu answered something else than the volume. Nothing is known then.
pub(super) fn context(
    node: &Node,
    volume: &Volume,
    device: Option<&Device>,
    fresh: bool,
) -> Answer<BTreeMap<String, String>> {
    let strange = |what: String| {
        Status::unavailable(format!(
            "csi-node-dpu of node {} answered {what} for {}; see its log",
            node.id, volume.id
        ))
    };
    let device = device.ok_or_else(|| strange("no device".to_owned()))?;
    let uuid = volume.id.uuid();
    if device.uuid != uuid.to_string() {
        return Err(strange(format!("a device with UUID {:?}", device.uuid)));
    }
    let (kind, address) = match (device.kind(), &device.address) {
        (ExposureKind::LocalBlockDevice, Some(Address::Path(_))) => (
            key::LOOP,
            node.exports.join(uuid.to_string()).display().to_string(),
        ),
        (ExposureKind::NvmeFunction, Some(Address::PciAddress(address))) => {
            (key::NVME, address.clone())
        }
        (ExposureKind::VirtioBlkFunction, Some(Address::PciAddress(address))) => {
            (key::VIRTIO_BLK, address.clone())
        }
        (kind, _) => {
            return Err(strange(format!(
                "a device of kind {} with another address",
                kind.as_str_name()
            )));
        }
    };
    let serial = framework::identity::serial(uuid);
    if !device.serial.is_empty() && device.serial != serial {
        return Err(strange(format!("a device with serial {:?}", device.serial)));
    }
    let pairs = [
        (key::UUID, uuid.to_string()),
        (key::SERIAL, serial),
        (key::KIND, kind.to_owned()),
        (key::ADDRESS, address),
        (key::SIZE, volume.size.to_string()),
        (key::FRESH, fresh.to_string()),
    ];
    let mut context: BTreeMap<_, _> = pairs.map(|(key, value)| (key.to_owned(), value)).into();
    if !device.vhost_user_socket.is_empty() {
        let directory = vhost_directory(uuid);
        if !Path::new(&device.vhost_user_socket).ends_with(Path::new(&directory).join(VHOST_SOCKET))
        {
            return Err(strange(format!(
                "a socket at {:?}",
                device.vhost_user_socket
            )));
        }
        let directory = node.exports.join(directory).display().to_string();
        context.insert(key::VHOST_USER_SOCKET.to_owned(), directory);
    }
    Ok(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use framework::{Qos, Source};

    const UUID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

    fn of(change: impl FnOnce(&mut Device)) -> Answer<BTreeMap<String, String>> {
        let volume = Volume {
            id: format!("v1.local.{UUID}").parse().unwrap(),
            name: "n".into(),
            size: 4096,
            source: Source::Blank,
            qos: Qos::default(),
            block_size: 512,
            hosts: vec![],
        };
        let mut device = Device {
            kind: ExposureKind::NvmeFunction.into(),
            address: Some(Address::PciAddress("0000:01:00.0".into())),
            uuid: UUID.into(),
            ..Device::default()
        };
        change(&mut device);
        let node = Node {
            id: "n1".into(),
            address: crate::nodes::Address::Unix("/x".into()),
            dn: None,
            engine: None,
            exports: "/exports".into(),
            limit: None,
            out_of_service: false,
            refusal: None,
        };
        context(&node, &volume, Some(&device), true)
    }

    #[test]
    fn both_halves_make_the_same_uuid_of_an_id() {
        let shared = uuid::Uuid::from_u128(api::storage::VOLUME_UUIDS);
        assert_eq!(framework::identity::NAMESPACE, shared);
    }

    #[test]
    fn the_context_names_the_disk_and_a_wrong_answer_is_no_disk() {
        let context = of(|_| ()).unwrap();
        let pairs: Vec<_> = context.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let expected = format!(
            "address=0000:01:00.0 fresh=true kind=nvme serial=NOT3QEE5VUI5DAFUADAE size=4096 uuid={UUID}"
        );
        assert_eq!(pairs.join(" "), expected);
        let disk = |d: &mut Device| {
            d.kind = ExposureKind::LocalBlockDevice.into();
            d.address = Some(Address::Path("/dev/loop7".into()));
        };
        let context = of(disk).unwrap();
        assert_eq!(
            (context["kind"].as_str(), &context["address"]),
            ("loop", &format!("/exports/{UUID}"))
        );
        let beside = |at: &str| {
            let at = at.to_owned();
            of(|d| {
                disk(d);
                d.vhost_user_socket = at;
            })
        };
        let socket = format!("/card/{UUID}.vhost/disk.sock");
        assert_eq!(
            beside(&socket).unwrap()["vhost-user-socket"],
            format!("/exports/{UUID}.vhost")
        );
        for error in [
            beside("/card/other.vhost/disk.sock").unwrap_err(),
            of(|d| d.uuid.clear()).unwrap_err(),
            of(|d| d.serial = "OTHER".into()).unwrap_err(),
            of(|d| d.address = Some(Address::Path("/dev/x".into()))).unwrap_err(),
            of(|d| d.kind = ExposureKind::VhostUserBlk.into()).unwrap_err(),
        ] {
            assert_eq!(error.code(), tonic::Code::Unavailable, "{error}");
        }
    }
}
