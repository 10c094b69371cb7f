//! What can be wrong with a card, or with what was asked of it.

use std::io;
use std::path::{Path, PathBuf};

use crate::PciAddress;

/// Why a function or a representor cannot be named, found or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text has no form of a device.
    #[error("`{text}` names no function of a card: a PCI address does, such as 0000:03:00.2")]
    NotADevice {
        /// As it was given.
        text: String,
    },
    /// A subfunction was asked for.
    #[error(
        "`{device}` is a subfunction, and pods are given virtual functions only: use a resource of the SR-IOV device \
         plugin whose devices are VFs"
    )]
    Subfunction {
        /// As it was given.
        device: String,
    },
    /// There is no such PCI device (any more).
    #[error(
        "there is no PCI device {0}: the card may have been reset, or has fewer virtual functions now (sriov_numvfs)"
    )]
    NoDevice(PciAddress),
    /// There is no such network link here.
    #[error("there is no network link {0} here: `ip link` shows those there are")]
    NoLink(String),
    /// The link is none of a PCI device.
    #[error(
        "network link {0} is none of a PCI device: name the card's physical function, by its link or PCI address"
    )]
    NoCard(String),
    /// It is no VF.
    #[error("PCI device {0} is no virtual function")]
    NotVirtual(PciAddress),
    /// It is no PF with SR-IOV.
    #[error("PCI device {0} is no physical function with SR-IOV: it has no sriov_numvfs")]
    NotPhysical(PciAddress),
    /// A driver does not take a device.
    #[error("driver {driver} does not take PCI device {device}: {why}")]
    Driver {
        /// The device, which has no driver now, or the one before.
        device: PciAddress,
        /// The driver that was to have it.
        driver: String,
        /// Cause and remedy.
        why: String,
    },
    /// Several could be meant.
    #[error("{what} may mean {one} or {other}: {remedy}")]
    Ambiguous {
        /// What was asked for.
        what: String,
        /// One that it may mean.
        one: String,
        /// Another one.
        other: String,
        /// What to do.
        remedy: String,
    },
    /// A chosen uplink is none.
    #[error("{uplink} is no uplink of a switch: {there}")]
    NoUplink {
        /// As it was given.
        uplink: String,
        /// Those there are.
        there: String,
    },
    /// The kernel refused.
    #[error("cannot {verb} {path}")]
    Io {
        /// What was to be done.
        verb: &'static str,
        /// To which file.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// What the kernel wrote has another form than its documentation says.
    #[error("{path} has `{text}` in it, which is {expected}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Its contents.
        text: String,
        /// What it is not.
        expected: &'static str,
    },
    /// The kernel refused a devlink request.
    #[error("cannot ask devlink for {what}")]
    Devlink {
        /// What was asked for.
        what: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            verb,
            path: path.to_owned(),
            source,
        }
    }
}
