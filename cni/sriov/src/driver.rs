//! Which driver has a device: the kernel's own one for pods, `vfio-pci` for VMs.

use crate::sysfs::{attribute, target, write};
use crate::{Error, PciAddress, Sysfs};

/// The driver that hands a function to a VM.
pub const VFIO: &str = "vfio-pci";

/// What the file has in it that was never written.
const NONE: &str = "(null)";

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Says which driver alone may take the device; none: any that fits.
    Override(Option<String>),
    /// Takes it from the driver that has it.
    Unbind(String),
    /// Has it taken.
    Probe,
}

/// The way from `bound` and `only` (driver_override) to `wanted`: a driver, or none for the one that fits. Begun anew after
/// any of its steps it goes on.
fn steps(bound: Option<&str>, only: Option<&str>, wanted: Option<&str>) -> Vec<Step> {
    let stays = match wanted {
        Some(wanted) => bound == Some(wanted),
        // That it fits is not known of a driver that was forced upon the device.
        None => bound.is_some() && only.is_none(),
    };
    let unbind = bound
        .filter(|_| !stays)
        .map(|driver| Step::Unbind(driver.to_owned()));
    let say = (only != wanted).then(|| Step::Override(wanted.map(str::to_owned)));
    // A driver that is forced is said first: what has no driver is anybody's. One that was forced lets go first: without
    // the word nobody would know that it has to.
    let (first, second) = if wanted.is_some() {
        (say, unbind)
    } else {
        (unbind, say)
    };
    let probe = (!stays).then_some(Step::Probe);
    [first, second, probe].into_iter().flatten().collect()
}

impl Sysfs {
    /// Gives a device to a driver, and to no other until [`Sysfs::release`]. Nothing happens to a device that the driver
    /// has already. Its link goes with the old driver and comes, if any, with the new one.
    ///
    /// # Errors
    /// [`Error::NoDevice`]; [`Error::Driver`]: the driver is not loaded or does not want it.
    pub fn bind(&self, device: PciAddress, driver: &str) -> Result<(), Error> {
        self.change_driver(device, Some(driver))?;
        let bound = self.driver(device)?;
        if bound.as_deref() == Some(driver) {
            return Ok(());
        }
        Err(Error::Driver {
            device,
            driver: driver.into(),
            why: self.why_not(device, driver)?,
        })
    }

    /// Takes back what [`Sysfs::bind`] said: the driver that fits gets the device. Gives the driver; there is none where
    /// the PF's `sriov_drivers_autoprobe` is off, and then only `bind` helps.
    ///
    /// # Errors
    /// [`Error::NoDevice`], or the kernel's.
    pub fn release(&self, device: PciAddress) -> Result<Option<String>, Error> {
        self.change_driver(device, None)?;
        self.driver(device)
    }

    /// The driver of a device.
    ///
    /// # Errors
    /// [`Error::NoDevice`].
    pub fn driver(&self, device: PciAddress) -> Result<Option<String>, Error> {
        let directory = self.device(device);
        if !directory.exists() {
            return Err(Error::NoDevice(device));
        }
        target(&directory.join("driver"))
    }

    /// The group that a VM is given a device by: `/dev/vfio/<group>`. None without an IOMMU.
    ///
    /// # Errors
    /// The kernel's.
    pub fn iommu_group(&self, device: PciAddress) -> Result<Option<String>, Error> {
        target(&self.device(device).join("iommu_group"))
    }

    fn change_driver(&self, device: PciAddress, wanted: Option<&str>) -> Result<(), Error> {
        let bound = self.driver(device)?;
        let only = attribute(&self.device(device).join("driver_override"))?;
        let only = only.as_deref().filter(|only| *only != NONE);
        for step in steps(bound.as_deref(), only, wanted) {
            match step {
                Step::Override(driver) => write(
                    &self.device(device).join("driver_override"),
                    // A lone line feed takes it back.
                    &format!("{}\n", driver.unwrap_or_default()),
                )?,
                Step::Unbind(driver) => write(
                    &self.pci().join("drivers").join(driver).join("unbind"),
                    &device.to_string(),
                )?,
                // Refused when nobody takes it; who has it is looked at afterwards.
                Step::Probe => {
                    let probed = write(&self.pci().join("drivers_probe"), &device.to_string());
                    if let Err(why) = probed
                        && !is_refusal(&why)
                    {
                        return Err(why);
                    }
                }
            }
        }
        Ok(())
    }

    fn why_not(&self, device: PciAddress, driver: &str) -> Result<String, Error> {
        if !self.pci().join("drivers").join(driver).exists() {
            return Ok(format!("it is not loaded: `modprobe {driver}`"));
        }
        if driver == VFIO && self.iommu_group(device)?.is_none() {
            return Ok(
                "the device has no IOMMU group: turn the IOMMU on in the firmware and for the kernel (intel_iommu=on)"
                    .into(),
            );
        }
        Ok("the kernel's log (dmesg) has the reason".into())
    }
}

fn is_refusal(why: &Error) -> bool {
    matches!(why, Error::Io { source, .. } if source.raw_os_error() == Some(nix::errno::Errno::EINVAL as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(driver: &str) -> Step {
        Step::Override(Some(driver.into()))
    }

    fn unbind(driver: &str) -> Step {
        Step::Unbind(driver.into())
    }

    #[test]
    fn a_driver_is_forced_before_the_old_one_lets_go() {
        let way = steps(Some("igbvf"), None, Some(VFIO));
        assert_eq!(way, [over(VFIO), unbind("igbvf"), Step::Probe]);
        let way = steps(None, None, Some(VFIO));
        assert_eq!(way, [over(VFIO), Step::Probe]);
    }

    #[test]
    fn what_is_as_wanted_is_left_alone() {
        assert_eq!(steps(Some(VFIO), Some(VFIO), Some(VFIO)), []);
        assert_eq!(steps(Some("igbvf"), None, None), []);
        // Only the word is missing: the driver keeps the device.
        assert_eq!(steps(Some(VFIO), None, Some(VFIO)), [over(VFIO)]);
    }

    #[test]
    fn a_forced_driver_is_taken_off() {
        let way = steps(Some(VFIO), Some(VFIO), None);
        assert_eq!(way, [unbind(VFIO), Step::Override(None), Step::Probe]);
        assert_eq!(steps(None, None, None), [Step::Probe]);
    }

    #[test]
    fn a_crash_in_between_is_gone_on_from() {
        // After Override; after Unbind.
        let way = steps(Some("igbvf"), Some(VFIO), Some(VFIO));
        assert_eq!(way, [unbind("igbvf"), Step::Probe]);
        assert_eq!(steps(None, Some(VFIO), Some(VFIO)), [Step::Probe]);
        let way = steps(None, Some(VFIO), None);
        assert_eq!(way, [Step::Override(None), Step::Probe]);
    }
}
