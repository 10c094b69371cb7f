//! `publish_context`: which disk the volume is on this node, as csi-controller learned it from the attachment.
//!
//! | key | value |
//! |---|---|
//! | `uuid` | the volume's UUID |
//! | `serial` | up to 20 printable characters |
//! | `kind` | `loop`, `nvme`, `virtio-blk` |
//! | `address` | loop: path of the exported file, `<exports dir>/<uuid>`; else the PCI address, `0000:00:01.0` |
//! | `size` | bytes |
//! | `fresh` | `true`: never formatted; `false`: formatted, cloned or restored |

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use api::storage::publish_context as key;
use uuid::Uuid;

use super::super::error::Error;
use super::Volume;

/// The longest serial number of an NVMe controller and of a virtio-blk disk.
const SERIAL: usize = 20;

/// What was attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    /// The volume's UUID.
    pub(crate) uuid: Uuid,
    /// The disk's serial number, where disks of that kind have one.
    pub(crate) serial: String,
    /// Where the disk appears.
    pub(crate) place: Place,
    /// Its size in bytes when it was attached; it may have grown.
    pub(crate) bytes: u64,
    /// It was never formatted.
    pub(crate) fresh: bool,
}

/// Where a disk appears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The loop device over this file.
    Loop(PathBuf),
    /// A namespace of the NVMe controller at this address.
    Nvme(PciAddress),
    /// The virtio disk at this address.
    VirtioBlk(PciAddress),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loop(path) => write!(f, "loop device over {}", path.display()),
            Self::Nvme(address) => write!(f, "NVMe disk at PCI address {address}"),
            Self::VirtioBlk(address) => write!(f, "virtio disk at PCI address {address}"),
        }
    }
}

/// Domain, bus, device and function, in the kernel's spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PciAddress(String);

impl PciAddress {
    fn parse(text: &str) -> Option<Self> {
        let (head, function) = text.split_once('.')?;
        let parts: Vec<&str> = head.split(':').collect();
        let hex = |part: &str, digits: usize| {
            part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit())
        };
        let [domain, bus, device] = parts.as_slice() else {
            return None;
        };
        (hex(domain, 4)
            && hex(bus, 2)
            && hex(device, 2)
            && matches!(function.as_bytes(), [b'0'..=b'7']))
        .then(|| Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Published {
    /// Of a request's field. `exports` is where this node's card puts its files.
    pub(crate) fn new(
        context: &BTreeMap<String, String>,
        volume: &Volume,
        exports: &Path,
    ) -> Result<Self, Error> {
        super::map("publish_context", context)?;
        let uuid = read(context, key::UUID, "a UUID", |v| Uuid::try_parse(v).ok())?;
        if volume.uuid.is_some_and(|of_id| of_id != uuid) {
            return Err(Error::Invalid(format!(
                "publish_context.uuid is {uuid}, but volume_id is {}: give the context that \
                 ControllerPublishVolume answered for this volume",
                volume.id
            )));
        }
        let serial = read(context, key::SERIAL, "1 to 20 printable characters", |v| {
            let printable = v.bytes().all(|b| b.is_ascii_graphic());
            (!v.is_empty() && v.len() <= SERIAL && printable).then(|| v.to_owned())
        })?;
        let place = place(context, uuid, exports)?;
        let bytes = read(context, key::SIZE, "a number of bytes above 0", |v| {
            v.parse().ok().filter(|bytes| *bytes > 0)
        })?;
        let fresh = read(context, key::FRESH, "`true` or `false`", |v| v.parse().ok())?;
        Ok(Self {
            uuid,
            serial,
            place,
            bytes,
            fresh,
        })
    }
}

fn place(context: &BTreeMap<String, String>, uuid: Uuid, exports: &Path) -> Result<Place, Error> {
    let pci = || {
        let what = "a PCI address such as 0000:00:01.0";
        read(context, key::ADDRESS, what, PciAddress::parse)
    };
    let kind = read(context, key::KIND, "`loop`, `nvme` or `virtio-blk`", |v| {
        [key::LOOP, key::NVME, key::VIRTIO_BLK]
            .into_iter()
            .find(|kind| *kind == v)
    })?;
    match kind {
        key::NVME => Ok(Place::Nvme(pci()?)),
        key::VIRTIO_BLK => Ok(Place::VirtioBlk(pci()?)),
        _ => {
            let path = read(context, key::ADDRESS, "an absolute path", |v| {
                Some(PathBuf::from(v)).filter(|path| path.is_absolute())
            })?;
            let own = exports.join(uuid.to_string());
            if path != own {
                return Err(Error::Refused(format!(
                    "publish_context.address is {}, but this node's card exposes the volume as {}: it \
                     was published to another node, or --exports-dir is not the card's directory",
                    path.display(),
                    own.display()
                )));
            }
            Ok(Place::Loop(path))
        }
    }
}

/// The value of `key`, read by `parse`.
fn read<T>(
    context: &BTreeMap<String, String>,
    key: &str,
    what: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Error> {
    let field = format!("publish_context.{key}");
    let value = context
        .get(key)
        .ok_or_else(|| super::missing(&field, what))?;
    // Not the value itself: a context that is not ours may hold anything.
    parse(value).ok_or_else(|| Error::Invalid(format!("{field} is malformed: it must be {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const ID: &str = "6f9619ff-8b86-4d01-b42d-00c04fc964ff";

    fn context(changes: &[(&str, Option<&str>)]) -> Result<Published, Error> {
        let path = format!("/exports/{ID}");
        let mut map: BTreeMap<String, String> = [
            ("uuid", ID),
            ("serial", "N6LBT74LQZGQDNBN"),
            ("kind", "loop"),
            ("address", &path),
            ("size", "1048576"),
            ("fresh", "true"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        for (key, value) in changes {
            match value {
                Some(value) => map.insert((*key).to_owned(), (*value).to_owned()),
                None => map.remove(*key),
            };
        }
        let volume = Volume::new(&format!("v1.local.{ID}")).unwrap();
        Published::new(&map, &volume, Path::new("/exports"))
    }

    #[test]
    fn a_complete_context_is_read() {
        let published = context(&[]).unwrap();
        assert_eq!(
            published.place,
            Place::Loop(format!("/exports/{ID}").into())
        );
        assert!(published.fresh);
        let nvme = [("kind", Some("nvme")), ("address", Some("0000:0A:00.0"))];
        let published = context(&nvme).unwrap();
        assert_eq!(
            published.place.to_string(),
            "NVMe disk at PCI address 0000:0a:00.0"
        );
    }

    #[rstest]
    #[case("uuid", "x")]
    #[case("uuid", "00000000-0000-0000-0000-000000000001")]
    #[case("serial", "")]
    #[case("serial", "123456789012345678901")]
    #[case("kind", "scsi")]
    #[case("address", "exports/x")]
    #[case("size", "0")]
    #[case("size", "1M")]
    #[case("fresh", "yes")]
    fn a_malformed_or_missing_key_is_named(#[case] key: &str, #[case] value: &str) {
        for change in [Some(value), None] {
            let error = context(&[(key, change)]).unwrap_err();
            assert!(matches!(error, Error::Invalid(_)), "{error}");
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("publish_context.{key} ")),
                "{error}"
            );
        }
    }

    #[test]
    fn the_export_of_another_node_is_refused() {
        let other = format!("/node-2/exports/{ID}");
        let error = context(&[("address", Some(&other))]).unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{error}");
    }

    #[rstest]
    #[case("0000:00:01")]
    #[case("00:01.0")]
    #[case("0000:00:01.8")]
    #[case("0000:00:1.0")]
    #[case("0000:00:zz.0")]
    #[case("../../../x.0")]
    fn a_malformed_pci_address_is_refused(#[case] address: &str) {
        assert_eq!(PciAddress::parse(address), None);
    }
}
