//! Yusur's cards: DPDK drives the representors; Open vSwitch is told the card's PCI address and the function's number.

use std::io;

use sriov::Sysfs;

use super::{CardFunction, Plug, Provider, Representor};

/// The provider. Such a card has one host: a controller's number says nothing.
pub(super) struct Yusur {
    /// The kernel's sysfs.
    pub(super) sysfs: Sysfs,
    /// Flag `--uplink`: the card's physical functions.
    pub(super) cards: Vec<String>,
}

impl Provider for Yusur {
    fn find(&self, function: CardFunction, _: Option<u32>) -> io::Result<Option<Representor>> {
        let Some(number) = function.vf else {
            return Ok(None);
        };
        let found = self
            .sysfs
            .yusur_representor(function.physical, number, &self.cards)
            .map_err(io::Error::other)?;
        Ok(found.map(|representor| Representor {
            link: representor.name,
            plug: Plug::Dpdk {
                devargs: representor.devargs,
            },
        }))
    }

    fn count(&self, _: Option<u32>) -> io::Result<u32> {
        let count = self
            .sysfs
            .yusur_count(&self.cards)
            .map_err(io::Error::other)?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }
}
