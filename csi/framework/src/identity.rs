//! What volumes, snapshots and groups are called, and as what a host finds a volume.
//!
//! An id is `<version>.<backend>.<handle>`, at most 128 bytes, so that it alone says which backend has the object. The
//! version tells the kinds apart (`v1`, `s1`, `g1`). The handle is the backend's own; a UUID where the backend is free.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The most that the CSI specification allows an id.
pub const MAX: usize = 128;
/// For handles that are not UUIDs: the volume's UUID is UUIDv5 of its whole id in this name space.
pub const NAMESPACE: Uuid = Uuid::from_u128(0x6f75_7462_6f61_7264_8000_766f_6c75_6d65);
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Not an id of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id of this driver")]
pub struct NotOurs(pub String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $version:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name {
            backend: String,
            handle: String,
        }

        impl $name {
            /// The id of `handle` in `backend`.
            ///
            /// # Errors
            /// It would be longer than [`MAX`], or a part is empty, or the backend's name has other characters than
            /// lower-case letters, digits and `-`.
            pub fn new(backend: &str, handle: &str) -> Result<Self, NotOurs> {
                format!(concat!($version, ".{}.{}"), backend, handle).parse()
            }

            /// The name of the backend that has it.
            #[must_use]
            pub fn backend(&self) -> &str {
                &self.backend
            }

            /// What the backend calls it.
            #[must_use]
            pub fn handle(&self) -> &str {
                &self.handle
            }

            /// Its UUID: the handle if that is one, else made from the id.
            #[must_use]
            pub fn uuid(&self) -> Uuid {
                let whole = String::from(self.clone());
                Uuid::try_parse(&self.handle)
                    .unwrap_or_else(|_| Uuid::new_v5(&NAMESPACE, whole.as_bytes()))
            }
        }

        impl FromStr for $name {
            type Err = NotOurs;

            fn from_str(text: &str) -> Result<Self, NotOurs> {
                let (backend, handle) = parts(text, $version).ok_or_else(|| NotOurs(text.to_owned()))?;
                Ok(Self { backend: backend.to_owned(), handle: handle.to_owned() })
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotOurs;

            fn try_from(text: String) -> Result<Self, NotOurs> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                format!(concat!($version, ".{}.{}"), id.backend, id.handle)
            }
        }

        /// With its kind in front, as it stands in sentences.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($kind, " ", $version, ".{}.{}"), self.backend, self.handle)
            }
        }
    };
}

id!(
    /// A volume's id.
    VolumeId, "v1", "volume"
);
id!(
    /// A snapshot's id.
    SnapshotId, "s1", "snapshot"
);
id!(
    /// The id of a group of snapshots.
    GroupId, "g1", "group snapshot"
);

fn parts<'a>(text: &'a str, version: &str) -> Option<(&'a str, &'a str)> {
    let (backend, handle) = text
        .strip_prefix(version)?
        .strip_prefix('.')?
        .split_once('.')?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let whole = text.len() <= MAX && !handle.is_empty();
    (whole && !backend.is_empty() && backend.bytes().all(plain)).then_some((backend, handle))
}

/// The serial number under which a host sees the volume: 20 characters, base32 (RFC 4648) of the UUID's first 100 bits.
#[must_use]
pub fn serial(uuid: Uuid) -> String {
    let bits = uuid.as_u128();
    (0..20)
        .map(|i| char::from(ALPHABET[(bits >> (123 - 5 * i) & 31) as usize]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn serials_are_what_they_were() {
        let vectors = [
            (
                "00000000-0000-0000-0000-000000000000",
                "AAAAAAAAAAAAAAAAAAAA",
            ),
            (
                "ffffffff-ffff-ffff-ffff-ffffffffffff",
                "77777777777777777777",
            ),
            // Python: base64.b32encode(uuid.UUID(…).bytes)[:20]
            (
                "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
                "NOT3QEE5VUI5DAFUADAE",
            ),
        ];
        for (uuid, expected) in vectors {
            assert_eq!(serial(uuid.parse().unwrap()), expected, "{uuid}");
        }
    }

    #[test]
    fn ids_cross_text_unchanged_and_kinds_do_not_mix() {
        let text = "v1.local.6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        let id: VolumeId = text.parse().unwrap();
        assert_eq!(String::from(id.clone()), text);
        assert_eq!(id.to_string(), format!("volume {text}"));
        assert_eq!(id.uuid().to_string(), id.handle());
        assert!(text.parse::<SnapshotId>().is_err());
        for bad in [
            "",
            "v1",
            "v1.local",
            "v1.local.",
            "v1..x",
            "v1.LOCAL.x",
            "v2.local.x",
        ] {
            assert!(bad.parse::<VolumeId>().is_err(), "{bad}");
        }
        assert!(
            format!("v1.local.{}", "x".repeat(119))
                .parse::<VolumeId>()
                .is_ok()
        );
        assert!(
            format!("v1.local.{}", "x".repeat(120))
                .parse::<VolumeId>()
                .is_err()
        );
        let foreign = VolumeId::new("csi", "vol-1.2").unwrap();
        assert_eq!((foreign.backend(), foreign.handle()), ("csi", "vol-1.2"));
        assert_eq!(foreign.uuid().get_version_num(), 5);
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_kept(text in "(v1\\.)?.{0,140}") {
            if let Ok(id) = text.parse::<VolumeId>() {
                prop_assert_eq!(String::from(id), text);
            }
        }
    }
}
