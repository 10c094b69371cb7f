//! Volumes, as asked for and as they are.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::identity::{SnapshotId, VolumeId};

/// How large a volume shall be, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SizeRange {
    /// At least this; 0 for the backend's default.
    pub required: u64,
    /// At most this.
    pub limit: Option<u64>,
}

impl SizeRange {
    /// At least `required`.
    #[must_use]
    pub fn at_least(required: u64) -> Self {
        Self {
            required,
            limit: None,
        }
    }

    /// Whether an existing size satisfies the range.
    #[must_use]
    pub fn has(&self, size: u64) -> bool {
        size >= self.required && self.limit.is_none_or(|limit| size <= limit)
    }

    /// The size to make: the required one, or `default`, rounded up to `unit`, and not above the limit.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] where no multiple of `unit` between the two exists, or above `max`.
    pub fn choose(&self, object: &str, default: u64, unit: u64, max: u64) -> Result<u64> {
        let refused = |why: String| Error::OutOfRange {
            object: object.to_owned(),
            why,
        };
        let wanted = match (self.required, self.limit) {
            (0, Some(limit)) => default.min(limit / unit * unit),
            (0, None) => default,
            (required, _) => required,
        };
        let size = wanted
            .max(1)
            .checked_next_multiple_of(unit)
            .filter(|size| *size <= max)
            .ok_or_else(|| refused(format!("{wanted} bytes asked for, at most {max} possible")))?;
        match self.limit {
            Some(limit) if size > limit => Err(refused(format!(
                "no multiple of {unit} bytes is at least {} and at most {limit}",
                self.required
            ))),
            _ => Ok(size),
        }
    }
}

/// What a volume starts as.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// All zeros.
    #[default]
    Blank,
    /// The contents of a snapshot.
    Snapshot(SnapshotId),
    /// The contents of a volume at this moment.
    Volume(VolumeId),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("nothing"),
            Self::Snapshot(id) => id.fmt(f),
            Self::Volume(id) => id.fmt(f),
        }
    }
}

/// Limits of a volume's I/O over all its users together; `None` is no limit. A limit of the sum excludes those of reads
/// and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Qos {
    /// Operations per second.
    pub iops: Option<u64>,
    /// Reads per second.
    pub read_iops: Option<u64>,
    /// Writes per second.
    pub write_iops: Option<u64>,
    /// Bytes per second.
    pub bytes: Option<u64>,
    /// Bytes read per second.
    pub read_bytes: Option<u64>,
    /// Bytes written per second.
    pub write_bytes: Option<u64>,
}

/// What QEMU's throttling accepts.
const QOS_MAX: u64 = 1_000_000_000_000_000;

impl Qos {
    /// The limits by name, as in the parameters of a StorageClass or VolumeAttributesClass.
    #[must_use]
    pub fn limits(&self) -> [(&'static str, Option<u64>); 6] {
        [
            ("iops", self.iops),
            ("readIops", self.read_iops),
            ("writeIops", self.write_iops),
            ("bytesPerSecond", self.bytes),
            ("readBytesPerSecond", self.read_bytes),
            ("writeBytesPerSecond", self.write_bytes),
        ]
    }

    /// # Errors
    /// [`Error::Invalid`] naming the limit.
    pub fn check(&self) -> Result<()> {
        for (key, limit) in self.limits() {
            if let Some(limit) = limit.filter(|limit| !(1..=QOS_MAX).contains(limit)) {
                let allowed = "1 to 1000000000000000, or leave it out for no limit";
                return Err(Error::invalid(key, &limit, allowed));
            }
        }
        for (key, sum, parts) in [
            ("iops", self.iops, self.read_iops.or(self.write_iops)),
            (
                "bytesPerSecond",
                self.bytes,
                self.read_bytes.or(self.write_bytes),
            ),
        ] {
            if let (Some(sum), Some(_)) = (sum, parts) {
                let allowed = "either this limit of the sum, or limits of reads and writes";
                return Err(Error::invalid(key, &sum, allowed));
            }
        }
        Ok(())
    }
}

/// What a volume shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateVolume {
    /// Its name: the key by which a repeated call finds it. Any text of 1 to 128 bytes.
    pub name: String,
    /// How large.
    pub size: SizeRange,
    /// With what contents.
    pub source: Source,
    /// With what limits.
    pub qos: Qos,
    /// Bytes of a logical block: 512 or 4096.
    pub block_size: u32,
    /// What was written and not flushed may be lost, without an error, when what serves the volume dies while hosts wait for it.
    pub write_cache: bool,
}

impl CreateVolume {
    /// A blank volume of at least `size` bytes without limits.
    #[must_use]
    pub fn blank(name: &str, size: u64) -> Self {
        Self {
            name: name.to_owned(),
            size: SizeRange::at_least(size),
            source: Source::Blank,
            qos: Qos::default(),
            block_size: 512,
            write_cache: false,
        }
    }

    /// A volume of at least `size` bytes with contents.
    #[must_use]
    pub fn from(name: &str, size: u64, source: Source) -> Self {
        Self {
            source,
            ..Self::blank(name, size)
        }
    }
}

/// A volume as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// The name it was created by.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// What it started as.
    pub source: Source,
    /// Its limits.
    pub qos: Qos,
    /// Bytes of a logical block.
    pub block_size: u32,
    /// The hosts that it is exported to.
    pub hosts: Vec<String>,
}

/// Names as the CSI specification has them: no control characters.
pub(crate) fn check_name(key: &str, name: &str) -> Result<()> {
    let control = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
    if name.is_empty() || name.len() > 128 || name.chars().any(control) {
        return Err(Error::invalid(
            key,
            &name.escape_debug(),
            "1 to 128 bytes without control characters",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_up_and_stay_in_range() {
        let choose = |required, limit| {
            SizeRange { required, limit }.choose("volume \"a\"", 1 << 30, 4096, 1 << 40)
        };
        assert_eq!(choose(1, None), Ok(4096));
        assert_eq!(choose(4097, Some(8192)), Ok(8192));
        assert_eq!(choose(0, None), Ok(1 << 30));
        assert_eq!(choose(0, Some(10_000)), Ok(8192));
        let range = choose(4097, Some(8191)).unwrap_err();
        assert!(matches!(range, Error::OutOfRange { .. }), "{range}");
        assert!(choose(u64::MAX, None).is_err());
        assert!(choose((1 << 40) + 1, None).is_err());
    }

    #[test]
    fn limits_that_exclude_each_other_are_refused_by_name() {
        let both = Qos {
            iops: Some(10),
            read_iops: Some(5),
            ..Qos::default()
        };
        assert!(
            both.check()
                .unwrap_err()
                .to_string()
                .starts_with("iops = \"10\"")
        );
        let zero = Qos {
            write_bytes: Some(0),
            ..Qos::default()
        };
        assert!(
            zero.check()
                .unwrap_err()
                .to_string()
                .contains("writeBytesPerSecond")
        );
    }
}
