//! What a `deviceID` names, as the SR-IOV device plugin and Multus hand it on.

use std::fmt;
use std::str::FromStr;

use crate::{Error, PciAddress};

/// A device of the device plugin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DeviceId {
    /// A PCI function.
    Pci(PciAddress),
    /// A subfunction, by its device on the auxiliary bus: `mlx5_core.sf.4`.
    Subfunction(String),
}

impl DeviceId {
    /// The PCI function that it names.
    ///
    /// # Errors
    /// [`Error::Subfunction`]: it has none of its own, and pods are given virtual functions only.
    pub fn pci(&self) -> Result<PciAddress, Error> {
        match self {
            Self::Pci(address) => Ok(*address),
            Self::Subfunction(device) => Err(Error::Subfunction {
                device: device.clone(),
            }),
        }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(address) => address.fmt(f),
            Self::Subfunction(device) => device.fmt(f),
        }
    }
}

impl FromStr for DeviceId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if is_subfunction(text) {
            return Ok(Self::Subfunction(text.into()));
        }
        text.parse().map(Self::Pci)
    }
}

/// `<driver>.sf.<number>` (Documentation/driver-api/auxiliary_bus.rst: module, name, id).
fn is_subfunction(text: &str) -> bool {
    let mut words = text.split('.');
    let (driver, kind, number) = (words.next(), words.next(), words.next());
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    driver.is_some_and(is_word)
        && kind == Some("sf")
        && number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pci_address_is_a_device() {
        let id: DeviceId = "0000:01:10.2".parse().unwrap();
        assert_eq!(id.pci().unwrap().to_string(), "0000:01:10.2");
    }

    #[test]
    fn a_subfunction_is_recognized_and_refused_with_what_to_do() {
        let id: DeviceId = "mlx5_core.sf.4".parse().unwrap();
        assert_eq!(id, DeviceId::Subfunction("mlx5_core.sf.4".into()));
        let why = id.pci().unwrap_err().to_string();
        assert!(
            why.contains("mlx5_core.sf.4") && why.contains("virtual functions"),
            "{why}"
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "eth0",
            "mlx5_core.eth.1",
            "mlx5_core.sf.",
            "mlx5_core.sf.1.2",
            "../x.sf.1",
            "03:00.2",
        ] {
            let why = text.parse::<DeviceId>().unwrap_err();
            assert!(matches!(why, Error::NotADevice { .. }), "{text}: {why}");
        }
    }
}
