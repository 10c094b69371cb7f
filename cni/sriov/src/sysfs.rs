//! Files of sysfs: one value a file, links that name things. Knows the kernel's manners, nothing of cards.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;

use crate::{Error, PciAddress};

/// A sysfs, or a tree that looks like one.
#[derive(Debug, Clone)]
pub struct Sysfs {
    root: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::new("/sys")
    }
}

impl Sysfs {
    /// The sysfs at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory of all PCI devices.
    pub(crate) fn pci(&self) -> PathBuf {
        self.root.join("bus/pci")
    }

    /// The directory of one PCI device.
    pub(crate) fn device(&self, address: PciAddress) -> PathBuf {
        self.pci().join("devices").join(address.to_string())
    }

    /// The directory of all links of this namespace.
    pub(crate) fn links(&self) -> PathBuf {
        self.root.join("class/net")
    }

    /// The directory of a link that somebody named.
    ///
    /// # Errors
    /// [`Error::NoLink`], also for a name that no link can have.
    pub(crate) fn link(&self, name: &str) -> Result<PathBuf, Error> {
        let possible = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
        let path = self.links().join(name);
        if possible && path.join("ifindex").exists() {
            Ok(path)
        } else {
            Err(Error::NoLink(name.into()))
        }
    }
}

/// Whether a failed read means that there is no value: the file is not there, or the driver or the state of the device
/// has nothing to say.
fn says_nothing(why: &io::Error) -> bool {
    let by_driver = [
        Errno::EOPNOTSUPP,
        Errno::EINVAL,
        Errno::ENODEV,
        Errno::ENXIO,
        Errno::ENOTDIR,
    ];
    why.kind() == ErrorKind::NotFound
        || by_driver
            .iter()
            .any(|code| why.raw_os_error() == Some(*code as i32))
}

/// The text of an attribute without the space around it; none where it has no value.
pub(crate) fn attribute(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(why) if says_nothing(&why) => Ok(None),
        Err(why) => Err(Error::io("read", path)(why)),
    }
}

/// An attribute that is a decimal number.
pub(crate) fn number<T: FromStr>(path: &Path) -> Result<Option<T>, Error> {
    let Some(text) = attribute(path)? else {
        return Ok(None);
    };
    let number = text.parse().map_err(|_| Error::Malformed {
        path: path.to_owned(),
        text,
        expected: "no number",
    })?;
    Ok(Some(number))
}

/// The name of what a link leads to; none where there is no link.
pub(crate) fn target(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_link(path) {
        Ok(target) => Ok(target
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())),
        Err(why) if says_nothing(&why) => Ok(None),
        Err(why) => Err(Error::io("read", path)(why)),
    }
}

/// The PCI address that a link leads to.
pub(crate) fn target_address(path: &Path) -> Result<Option<PciAddress>, Error> {
    let Some(text) = target(path)? else {
        return Ok(None);
    };
    let address = text.parse().map_err(|_| Error::Malformed {
        path: path.to_owned(),
        text,
        expected: "no PCI address",
    })?;
    Ok(Some(address))
}

/// The names in a directory, in order; none where there is no directory.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(why) if says_nothing(&why) => return Ok(Vec::new()),
        Err(why) => return Err(Error::io("list", path)(why)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", path))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Writes an attribute.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Error> {
    // Never made: a file that is not there is the kernel's refusal.
    let written = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(Error::io("write", path))
}
