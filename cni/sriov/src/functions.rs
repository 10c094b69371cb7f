//! The host's side of a card: physical functions, and the virtual functions that they have now.

use std::path::Path;

use crate::sysfs::{attribute, names, number, target, target_address};
use crate::{Error, PciAddress, PortName, Sysfs, VFIO};

/// PCI class "network controller", as the highest byte of three.
const NETWORK: &str = "0x02";
const VIRTFN: &str = "virtfn";

/// A network card's physical function that can have virtual ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Physical {
    /// Its name for ever.
    pub address: PciAddress,
    /// As the card counts it.
    pub number: u32,
    /// Its link, if it is in this namespace.
    pub link: Option<String>,
    /// Its driver.
    pub driver: Option<String>,
    /// How many VFs it can have.
    pub total: u32,
    /// How many it has.
    pub enabled: u32,
}

/// A virtual function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Virtual {
    /// Its name, as long as its PF has as many VFs.
    pub address: PciAddress,
    /// The PF that it belongs to.
    pub physical: PciAddress,
    /// As the PF counts it.
    pub number: u32,
    /// Its link, if it is in this namespace.
    pub link: Option<String>,
    /// Of its link, in lower case.
    pub mac: Option<String>,
    /// Its driver.
    pub driver: Option<String>,
}

impl Virtual {
    /// A VM can be given it, no pod's namespace.
    #[must_use]
    pub fn is_vfio(&self) -> bool {
        self.driver.as_deref() == Some(VFIO)
    }
}

impl Sysfs {
    /// All physical functions of network cards here, by address.
    ///
    /// # Errors
    /// The kernel's.
    pub fn physical_functions(&self) -> Result<Vec<Physical>, Error> {
        let mut functions = Vec::new();
        for name in names(&self.pci().join("devices"))? {
            let Ok(address) = name.parse::<PciAddress>() else {
                continue;
            };
            let class = attribute(&self.device(address).join("class"))?.unwrap_or_default();
            if class.starts_with(NETWORK) {
                functions.extend(self.read_physical(address)?);
            }
        }
        functions.sort_by_key(|function| function.address);
        Ok(functions)
    }

    /// The cards that a host's pods have functions of: those that `chosen` names by link or PCI address; if it names none,
    /// all that have virtual functions now. Each has a number of its own, for by that the other side of the card knows it.
    ///
    /// # Errors
    /// A chosen one is none; [`Error::Ambiguous`]: two have the same number.
    pub fn cards(&self, chosen: &[String]) -> Result<Vec<Physical>, Error> {
        let mut cards = if chosen.is_empty() {
            let mut all = self.physical_functions()?;
            all.retain(|card| card.enabled > 0);
            all
        } else {
            let named = chosen.iter().map(|name| self.physical(name));
            named.collect::<Result<_, _>>()?
        };
        cards.sort_by_key(|card| (card.number, card.address));
        cards.dedup();
        let same = |two: &&[Physical]| two[0].number == two[1].number;
        if let Some([one, other]) = cards.windows(2).find(same) {
            return Err(Error::Ambiguous {
                what: format!("pf{}", one.number),
                one: one.address.to_string(),
                other: other.address.to_string(),
                remedy: "say which card it is by --pf".into(),
            });
        }
        Ok(cards)
    }

    /// The physical function that an operator names by its link or its PCI address.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn physical(&self, name: &str) -> Result<Physical, Error> {
        let address = match name.parse() {
            Ok(address) => address,
            Err(_) => self.address_of_link(name)?,
        };
        self.physical_at(address)
    }

    /// The physical function at an address.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::NotPhysical`].
    pub fn physical_at(&self, address: PciAddress) -> Result<Physical, Error> {
        self.expect(address)?;
        self.read_physical(address)?
            .ok_or(Error::NotPhysical(address))
    }

    /// The PCI device of a link of this namespace.
    ///
    /// # Errors
    /// [`Error::NoLink`], or [`Error::NoCard`]: the link is a bridge, a veth, …
    pub fn address_of_link(&self, link: &str) -> Result<PciAddress, Error> {
        let device = target(&self.link(link)?.join("device"))?;
        device
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| Error::NoCard(link.into()))
    }

    /// The virtual functions of a physical one, by number.
    ///
    /// # Errors
    /// [`Error::NoDevice`], or the kernel's.
    pub fn virtual_functions(&self, physical: PciAddress) -> Result<Vec<Virtual>, Error> {
        self.expect(physical)?;
        let mut functions = Vec::new();
        for (number, address) in self.numbered(physical)? {
            // It may have gone since the list was read.
            functions.extend(self.read_virtual(address, physical, number)?);
        }
        Ok(functions)
    }

    /// The virtual function at an address, whatever its link is called and wherever it is.
    ///
    /// # Errors
    /// [`Error::NoDevice`]: it has gone. [`Error::NotVirtual`]: it is another device.
    pub fn virtual_at(&self, address: PciAddress) -> Result<Virtual, Error> {
        self.expect(address)?;
        let physical = self.physical_of(address)?;
        let all = self.numbered(physical)?;
        let (number, _) = all
            .into_iter()
            .find(|(_, at)| *at == address)
            .ok_or(Error::NoDevice(address))?;
        self.read_virtual(address, physical, number)?
            .ok_or(Error::NoDevice(address))
    }

    /// The virtual function of that number. None: the physical one has fewer now.
    ///
    /// # Errors
    /// [`Error::NoDevice`], or the kernel's.
    pub fn virtual_number(
        &self,
        physical: PciAddress,
        number: u32,
    ) -> Result<Option<Virtual>, Error> {
        self.expect(physical)?;
        let link = self.device(physical).join(format!("{VIRTFN}{number}"));
        match target_address(&link)? {
            Some(address) => self.read_virtual(address, physical, number),
            None => Ok(None),
        }
    }

    /// The physical function that a virtual one belongs to.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::NotVirtual`].
    pub fn physical_of(&self, address: PciAddress) -> Result<PciAddress, Error> {
        self.expect(address)?;
        target_address(&self.device(address).join("physfn"))?.ok_or(Error::NotVirtual(address))
    }

    /// The devices behind `virtfn0`, `virtfn1`, …
    fn numbered(&self, physical: PciAddress) -> Result<Vec<(u32, PciAddress)>, Error> {
        let directory = self.device(physical);
        let mut functions = Vec::new();
        for name in names(&directory)? {
            let number = name.strip_prefix(VIRTFN).and_then(|n| n.parse().ok());
            if let Some(number) = number
                && let Some(address) = target_address(&directory.join(&name))?
            {
                functions.push((number, address));
            }
        }
        functions.sort_unstable();
        Ok(functions)
    }

    fn expect(&self, address: PciAddress) -> Result<(), Error> {
        if self.device(address).exists() {
            Ok(())
        } else {
            Err(Error::NoDevice(address))
        }
    }

    fn read_physical(&self, address: PciAddress) -> Result<Option<Physical>, Error> {
        let directory = self.device(address);
        let Some(total) = number(&directory.join("sriov_totalvfs"))? else {
            return Ok(None);
        };
        Ok(Some(Physical {
            address,
            number: address.function(),
            link: link_of(self, &directory)?,
            driver: target(&directory.join("driver"))?,
            total,
            enabled: number(&directory.join("sriov_numvfs"))?.unwrap_or(0),
        }))
    }

    fn read_virtual(
        &self,
        address: PciAddress,
        physical: PciAddress,
        number: u32,
    ) -> Result<Option<Virtual>, Error> {
        let directory = self.device(address);
        if !directory.exists() {
            return Ok(None);
        }
        let link = link_of(self, &directory)?;
        let mac = match &link {
            Some(link) => attribute(&self.links().join(link).join("address"))?,
            None => None,
        };
        Ok(Some(Virtual {
            address,
            physical,
            number,
            link,
            mac: mac.map(|mac| mac.to_ascii_lowercase()),
            driver: target(&directory.join("driver"))?,
        }))
    }
}

/// The link of a device. In mode `switchdev` a PF's device has the representors, too: they stand for somebody else.
fn link_of(sysfs: &Sysfs, device: &Path) -> Result<Option<String>, Error> {
    for link in names(&device.join("net"))? {
        let port = attribute(&sysfs.links().join(&link).join("phys_port_name"))?;
        let port = port.and_then(|name| name.parse().ok());
        if !matches!(port, Some(PortName::Function { .. })) {
            return Ok(Some(link));
        }
    }
    Ok(None)
}
