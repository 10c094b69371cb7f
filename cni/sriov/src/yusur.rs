//! Yusur's cards: DPDK drives their representors, which are counted, not named by the kernel.
//!
//! A card says what it is in `hw/plat_name` of its PCI functions. The representor of VF `v` of PF `p` is called
//! `pf<p>vf<v>rep`, and Open vSwitch reaches it by the PF's address and the VF's number.

use crate::sysfs::{attribute, names, number};
use crate::{Error, PciAddress, Sysfs};

/// How the name of a card's platform ends.
const SMART_NIC: &str = "smart-nic";

/// A physical function of such a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Its name for ever.
    pub address: PciAddress,
    /// As the card counts it.
    pub number: u32,
    /// How many virtual functions it has; none: this side of the card does not say it, and the links of the
    /// representors do.
    pub functions: Option<u32>,
}

/// What Open vSwitch is told of a virtual function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Representor {
    /// Name of the port.
    pub name: String,
    /// `options:dpdk-devargs`.
    pub devargs: String,
}

impl Representor {
    fn of(card: PciAddress, physical: u32, virtual_function: u32) -> Self {
        Self {
            name: format!("pf{physical}vf{virtual_function}rep"),
            devargs: format!("{card},representor=[{virtual_function}]"),
        }
    }
}

/// The PF and the VF that a representor's name means.
#[must_use]
pub fn function(representor: &str) -> Option<(u32, u32)> {
    let (physical, virtual_function) = representor
        .strip_prefix("pf")?
        .strip_suffix("rep")?
        .split_once("vf")?;
    Some((decimal(physical)?, decimal(virtual_function)?))
}

/// Digits alone, as the name is written.
fn decimal(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Whether the name of a platform is that of such a card.
fn is_smart_nic(platform: &str) -> bool {
    platform.ends_with(SMART_NIC)
}

impl Sysfs {
    /// Whether a PCI device is a function of such a card.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_yusur(&self, device: PciAddress) -> Result<bool, Error> {
        let platform = attribute(&self.device(device).join("hw/plat_name"))?;
        Ok(platform.is_some_and(|platform| is_smart_nic(&platform)))
    }

    /// The physical functions of such cards, by address; of those that `chosen` names by link or PCI address, if it names
    /// any.
    ///
    /// # Errors
    /// A chosen one is none, or the kernel's.
    pub fn yusur_cards(&self, chosen: &[String]) -> Result<Vec<Card>, Error> {
        let mut addresses = Vec::new();
        for name in chosen {
            addresses.push(match name.parse() {
                Ok(address) => address,
                Err(_) => self.address_of_link(name)?,
            });
        }
        if chosen.is_empty() {
            let all = names(&self.pci().join("devices"))?;
            addresses.extend(
                all.iter()
                    .filter_map(|name| name.parse::<PciAddress>().ok()),
            );
        }
        addresses.sort_unstable();
        addresses.dedup();
        let mut cards = Vec::new();
        for address in addresses {
            let device = self.device(address);
            if device.join("physfn").exists() || !self.is_yusur(address)? {
                continue;
            }
            cards.push(Card {
                address,
                number: address.function(),
                functions: number(&device.join("sriov_numvfs"))?,
            });
        }
        Ok(cards)
    }

    /// The representor of a virtual function. None: there is no such card, or it has no such function.
    ///
    /// # Errors
    /// [`Error::Ambiguous`]: several cards have a PF of that number, and `chosen` does not say which.
    pub fn yusur_representor(
        &self,
        physical: u32,
        virtual_function: u32,
        chosen: &[String],
    ) -> Result<Option<Representor>, Error> {
        let cards = self.yusur_cards(chosen)?;
        let mut with_number = cards.into_iter().filter(|card| card.number == physical);
        let Some(card) = with_number.next() else {
            return Ok(None);
        };
        if let Some(other) = with_number.next() {
            return Err(Error::Ambiguous {
                what: format!("pf{physical}"),
                one: card.address.to_string(),
                other: other.address.to_string(),
                remedy: "say which card it is by --uplink".into(),
            });
        }
        let representor = Representor::of(card.address, physical, virtual_function);
        let has = match card.functions {
            Some(functions) => virtual_function < functions,
            None => self.link(&representor.name).is_ok(),
        };
        Ok(has.then_some(representor))
    }

    /// How many virtual functions those cards have.
    ///
    /// # Errors
    /// The kernel's.
    pub fn yusur_count(&self, chosen: &[String]) -> Result<usize, Error> {
        let links = names(&self.links())?;
        let mut count = 0;
        for card in self.yusur_cards(chosen)? {
            let is_its = |link: &&String| {
                function(link).is_some_and(|(physical, _)| physical == card.number)
            };
            count += match card.functions {
                Some(functions) => functions as usize,
                None => links.iter().filter(is_its).count(),
            };
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn representor(physical: u32, virtual_function: u32) -> Representor {
        let card = "0000:01:00.0".parse().unwrap();
        Representor::of(card, physical, virtual_function)
    }

    #[test]
    fn names_and_arguments_are_those_of_the_driver() {
        let said = representor(0, 3);
        assert_eq!(said.name, "pf0vf3rep");
        assert_eq!(said.devargs, "0000:01:00.0,representor=[3]");
    }

    #[test]
    fn other_names_are_no_representors() {
        for name in [
            "pf0vf3",
            "pf0rep",
            "pfvf1rep",
            "pf0vf01rep",
            "pf+0vf1rep",
            "c1pf0vf3rep",
            "",
        ] {
            assert_eq!(function(name), None, "{name}");
        }
    }

    #[test]
    fn a_platform_is_known_by_its_end() {
        assert!(is_smart_nic("k2-smart-nic"));
        assert!(!is_smart_nic("smart-nic-tester"));
    }

    proptest! {
        #[test]
        fn what_is_said_is_understood(physical: u32, virtual_function: u32) {
            let name = representor(physical, virtual_function).name;
            prop_assert_eq!(function(&name), Some((physical, virtual_function)));
        }
    }
}
