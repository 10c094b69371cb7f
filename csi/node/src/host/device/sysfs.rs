//! The kernel's block devices as sysfs shows them, under a root that tests choose.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// sysfs counts in sectors of this size, whatever the disk's own is.
const SECTOR: u64 = 512;

/// Major and minor number of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Numbers {
    /// The driver's.
    pub(crate) major: u64,
    /// The device's.
    pub(crate) minor: u64,
}

impl Numbers {
    /// Of `st_rdev`.
    pub(crate) fn of(rdev: u64) -> Self {
        Self {
            major: nix::sys::stat::major(rdev),
            minor: nix::sys::stat::minor(rdev),
        }
    }

    /// Of `7:0`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// sysfs.
#[derive(Debug, Clone)]
pub(crate) struct Sysfs {
    root: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self {
            root: "/sys".into(),
        }
    }
}

impl Sysfs {
    /// A tree that looks like sysfs.
    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The names of all whole disks that begin with `prefix`, sorted.
    pub(crate) fn disks(&self, prefix: &str) -> Vec<String> {
        let mut names = names(&self.root.join("block"));
        names.retain(|name| name.starts_with(prefix));
        names
    }

    /// The directory of a disk.
    pub(crate) fn disk(&self, name: &str) -> PathBuf {
        self.root.join("block").join(name)
    }

    /// An attribute of a disk; `None`: it is absent, or the disk went away.
    pub(crate) fn attribute(&self, name: &str, attribute: &str) -> Option<String> {
        read(&self.disk(name).join(attribute))
    }

    /// The device numbers of a disk.
    pub(crate) fn numbers(&self, name: &str) -> Option<Numbers> {
        Numbers::parse(&self.attribute(name, "dev")?)
    }

    /// The size of a disk in bytes.
    pub(crate) fn bytes(&self, name: &str) -> Option<u64> {
        self.attribute(name, "size")?
            .parse::<u64>()
            .ok()?
            .checked_mul(SECTOR)
    }

    /// The name of the device with these numbers.
    pub(crate) fn name(&self, numbers: Numbers) -> Option<String> {
        let link = self.root.join("dev/block").join(numbers.to_string());
        let target = fs::read_link(link).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// What is built on a disk (device mapper, md, bcache).
    pub(crate) fn holders(&self, name: &str) -> Vec<String> {
        names(&self.disk(name).join("holders"))
    }

    /// The PCI device at an address.
    pub(crate) fn pci(&self, address: &super::super::request::PciAddress) -> PathBuf {
        self.root.join("bus/pci/devices").join(address.to_string())
    }
}

/// The entries of a directory, sorted; none if it is absent.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// An attribute without the blanks and the line's end around it.
pub(super) fn read(path: &Path) -> Option<String> {
    let text = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&text).trim().to_owned())
}
