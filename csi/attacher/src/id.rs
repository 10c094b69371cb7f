//! Which attachment, and what its objects on the card are called.

use std::fmt;

use proto::attacher::v1::AttachmentId;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// All objects of ours bear it: so an object without a record is known for an orphan of ours.
pub(crate) const PREFIX: &str = "att-";

/// A volume at a host. In order of (host, uuid), as List promises.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    /// The host's name.
    pub(crate) host: String,
    /// The volume's.
    pub(crate) uuid: Uuid,
}

impl Id {
    /// The id of the objects on the card: 57 characters of `[a-z0-9-]`, the same for the same attachment for ever. The host is hashed: its
    /// name may be longer than an id.
    pub(crate) fn object(&self) -> String {
        let digest = Sha256::digest(self.host.as_bytes());
        let host: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
        format!("{PREFIX}{}-{host}", self.uuid)
    }

    pub(crate) fn message(&self) -> AttachmentId {
        AttachmentId {
            host: self.host.clone(),
            volume_uuid: self.uuid.to_string(),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume {} at host {}", self.uuid, self.host)
    }
}

/// The id that the full name of an object on the card ends in, if the object is ours.
pub(crate) fn object_of(name: &str) -> Option<&str> {
    let id = name.split('/').nth(1)?;
    id.starts_with(PREFIX).then_some(id)
}

/// What a host's kernel shows as the serial unless the caller says otherwise: 20 characters, base32 of the uuid's first 100 bits.
pub(crate) fn serial(uuid: Uuid) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let number = uuid.as_u128();
    (0..20)
        .map(|at| ALPHABET[(number >> (123 - 5 * at)) as usize & 31])
        .map(char::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_stable_names_that_lead_back() {
        let uuid: Uuid = "6ba7b810-9dad-41d1-80b4-00c04fd430c8".parse().unwrap();
        let id = Id {
            host: "n".repeat(253),
            uuid,
        };
        let object = id.object();
        assert!(object.len() <= 63);
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(object.chars().all(plain), "{object}");
        let name = format!("nvmeSubsystems/{object}/nvmeNamespaces/{object}");
        assert_eq!(object_of(&name), Some(object.as_str()));
        assert_eq!(object_of("sources/theirs"), None);
        let other = Id {
            host: "m".to_owned(),
            uuid,
        };
        assert_ne!(other.object(), object);
    }

    #[test]
    fn a_serial_is_base32_of_the_first_100_bits() {
        assert_eq!(serial(Uuid::nil()), "A".repeat(20));
        assert_eq!(serial(Uuid::max()), "7".repeat(20));
        // The same vector as in csi/framework.
        let uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap();
        assert_eq!(serial(uuid), "NOT3QEE5VUI5DAFUADAE");
    }
}
