//! Whole operations against a real OVN of one node: databases, northd, ovs-vswitchd, ovn-controller, kernel.

mod add;
mod certificate;
mod events;
mod faults;
pub(crate) mod guest;
mod migration;
mod server;
mod vhostuser;
pub(crate) mod world;
