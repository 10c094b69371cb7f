//! Which mode a card's switch is in.

use std::fmt;

use crate::devlink::Devlink;
use crate::sysfs::{attribute, names};
use crate::{Error, PciAddress, Sysfs};

/// The mode of the switch in a card (devlink: `eswitch mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eswitch {
    /// The card forwards by MAC and VLAN as the PF was told; there are no representors.
    Legacy,
    /// Each function has a representor, and who has those decides.
    Switchdev,
}

impl fmt::Display for Eswitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy => "legacy",
            Self::Switchdev => "switchdev",
        })
    }
}

impl Sysfs {
    /// The mode of a PF's switch: as devlink says; where it does not know the device, `switchdev` if a link of the device
    /// has a switch. A host whose card's switch is the DPU's sees `legacy`.
    ///
    /// # Errors
    /// [`Error::NoDevice`], or the kernel's.
    pub fn eswitch(
        &self,
        physical: PciAddress,
        devlink: Option<&mut Devlink>,
    ) -> Result<Eswitch, Error> {
        let directory = self.device(physical);
        if !directory.exists() {
            return Err(Error::NoDevice(physical));
        }
        if let Some(devlink) = devlink
            && let Some(mode) = devlink.eswitch("pci", &physical.to_string())?
        {
            return Ok(mode);
        }
        for link in names(&directory.join("net"))? {
            if attribute(&self.links().join(link).join("phys_switch_id"))?.is_some() {
                return Ok(Eswitch::Switchdev);
            }
        }
        Ok(Eswitch::Legacy)
    }
}
