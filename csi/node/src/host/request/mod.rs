//! What is asked, checked field by field before anything is touched. What is wrong is told with the field's name and
//! with what it should be.

mod capability;
mod context;
mod mkfs;
mod path;

use uuid::Uuid;

pub(crate) use capability::{Access, Usage};
pub(crate) use context::{PciAddress, Place, Published};
pub(crate) use mkfs::Options as MkfsOptions;
pub(crate) use path::{given as path, resolve};

use super::error::Error;

/// The name space in which csi-framework makes a UUID of an id whose handle is none.
const NAMESPACE: Uuid = Uuid::from_u128(api::storage::VOLUME_UUIDS);
/// The most bytes of a string (CSI specification, "Size Limits").
const STRING: usize = 128;
/// The most bytes of a map.
const MAP: usize = 4096;

/// The volume that a call is about.
#[derive(Debug, Clone)]
pub(crate) struct Volume {
    /// As csi-controller named it.
    pub(crate) id: String,
    /// Its UUID: under that name the host sees the disk. `None`: the id is none of this driver's.
    pub(crate) uuid: Option<Uuid>,
}

impl Volume {
    /// Of the field `volume_id`. Any string is an id: one that nobody gave is unknown, not wrong.
    pub(crate) fn new(id: &str) -> Result<Self, Error> {
        if id.is_empty() {
            return Err(missing("volume_id", "the id that CreateVolume answered"));
        }
        string("volume_id", id)?;
        // `v1.<backend>.<handle>`
        let handle = id.strip_prefix("v1.").and_then(|rest| rest.split_once('.'));
        Ok(Self {
            id: id.to_owned(),
            uuid: handle.map(|(_, handle)| {
                Uuid::try_parse(handle).unwrap_or_else(|_| Uuid::new_v5(&NAMESPACE, id.as_bytes()))
            }),
        })
    }
}

/// A field that has to be there.
fn missing(field: &str, what: &str) -> Error {
    Error::Invalid(format!("{field} is missing: give {what}"))
}

/// A string of at most 128 bytes without control characters.
fn string(field: &str, value: &str) -> Result<(), Error> {
    if value.len() > STRING {
        let length = value.len();
        return Err(Error::Invalid(format!(
            "{field} has {length} bytes: at most {STRING} are allowed"
        )));
    }
    if value.chars().any(char::is_control) {
        return Err(Error::Invalid(format!(
            "{field} has a control character in it: give printable text"
        )));
    }
    Ok(())
}

/// A map of at most 4 KiB. Its content is not looked at, nor ever printed: it may be secret.
pub(crate) fn map<'a, I>(field: &str, map: I) -> Result<(), Error>
where
    I: IntoIterator<Item = (&'a String, &'a String)>,
{
    let bytes: usize = map.into_iter().map(|(k, v)| k.len() + v.len()).sum();
    if bytes > MAP {
        return Err(Error::Invalid(format!(
            "{field} has {bytes} bytes: at most {MAP} are allowed"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uuid_is_read_from_the_id_and_any_other_id_is_taken() {
        let uuid = "6f9619ff-8b86-4d01-b42d-00c04fc964ff";
        let id = format!("v1.local.{uuid}");
        assert_eq!(Volume::new(&id).unwrap().uuid.unwrap().to_string(), uuid);
        assert!(Volume::new("v1.csi.vol-7").unwrap().uuid.is_some());
        for other in ["fake-vol-id", "v1.local", "s1.local.6f96"] {
            assert_eq!(Volume::new(other).unwrap().uuid, None, "{other}");
        }
        assert!(Volume::new("").is_err());
        assert!(Volume::new(&"x".repeat(129)).is_err());
        assert!(Volume::new("a\nb").is_err());
    }
}
