//! Which functions has a card, and which representors?
//!
//! A card with SR-IOV is seen from two sides. The host that it is plugged into sees physical functions (PFs) and their
//! virtual functions (VFs): [`Sysfs::physical_functions`], [`Sysfs::virtual_functions`], and which driver has them:
//! [`Sysfs::bind`]. Who runs on the card, or has its switch in mode `switchdev`, sees one representor for each of them:
//! [`Ports`], or for Yusur's cards [`yusur`].
//!
//! All of it is read from sysfs, whose root is a parameter, and where the kernel has it from devlink, which knows better
//! what a port is. What is read is an observation; which port is meant is decided by pure functions over it.
//!
//! A sysfs shows the network links of the namespace in which it was mounted, and devlink's socket those of the namespace
//! in which it was opened. This crate enters no namespace and moves no link: cni-node does. Every call blocks: an async
//! caller uses its blocking pool.

mod address;
mod device_id;
pub mod devlink;
mod driver;
mod error;
mod eswitch;
mod events;
mod functions;
mod port_name;
mod ports;
mod sysfs;
pub mod yusur;

#[cfg(test)]
mod tests;

pub use address::PciAddress;
pub use device_id::DeviceId;
pub use driver::VFIO;
pub use error::Error;
pub use eswitch::Eswitch;
pub use events::PciEvents;
pub use functions::{Physical, Virtual};
pub use port_name::{NotAPortName, Part, PortName};
pub use ports::{Port, Ports, Scope, Source};
pub use sysfs::Sysfs;
