//! Devices of a virtual machine: QEMU only (QAPI: qdev.json, pci.json).

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Done, command, none};

command! {
    /// Plugs a device in. The guest may see it later, or never.
    DeviceAdd = "device_add" -> Done {
        /// The device model: `nvme`, `vhost-user-blk-pci`, …
        driver: String,
        /// Its id.
        id: String,
        /// Where it is plugged in: the id of a `pcie-root-port`, …
        #[serde(skip_serializing_if = "none")]
        bus: Option<String>,
        /// Properties of the model: `drive`, `serial`, `chardev`, …
        #[serde(flatten)]
        properties: Map<String, Value>,
    }

    /// Asks the guest to give a device up. It is gone when the event `DEVICE_DELETED` comes ([`DeviceDeleted`]).
    DeviceDel = "device_del" -> Done {
        /// The device.
        id: String,
    }

    /// The machine's PCI buses.
    QueryPci = "query-pci" -> Vec<PciBus> {}
}

/// Data of the event `DEVICE_DELETED`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DeviceDeleted {
    /// The device's id; it has none if it was made without.
    #[serde(default)]
    pub device: Option<String>,
    /// Its path in QOM.
    pub path: String,
}

/// A PCI bus.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PciBus {
    /// Its number.
    pub bus: u32,
    /// What is plugged into it.
    pub devices: Vec<PciDevice>,
}

/// A PCI function.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PciDevice {
    /// The bus's number; 0 behind a bridge that the guest has not set up.
    pub bus: u32,
    /// Its slot.
    pub slot: u32,
    /// Its function.
    pub function: u32,
    /// The device's id; empty if it has none.
    pub qdev_id: String,
    /// What is behind it, if it is a bridge.
    #[serde(default)]
    pub pci_bridge: Option<PciBridge>,
}

/// A PCI bridge, such as a root port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PciBridge {
    /// The numbers of its buses.
    pub bus: BridgeBus,
    /// The functions behind it.
    #[serde(default)]
    pub devices: Vec<PciDevice>,
}

/// The numbers of a bridge's buses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct BridgeBus {
    /// The bus that it is plugged into.
    pub number: u32,
    /// The first bus behind it.
    pub secondary: u32,
    /// The last bus behind it.
    pub subordinate: u32,
}

impl PciBus {
    /// The function whose device has this id, behind any bridge.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&PciDevice> {
        self.devices.iter().find_map(|device| device.find(id))
    }
}

impl PciDevice {
    fn find(&self, id: &str) -> Option<&PciDevice> {
        if self.qdev_id == id {
            return Some(self);
        }
        let behind = self.pci_bridge.as_ref()?;
        behind.devices.iter().find_map(|device| device.find(id))
    }
}
