//! The MTU that a vhost-user interface tells its guest.
//!
//! Not by `<mtu>`: libvirt then sets it on a link of the host with the name of `<target dev>`, which a vhost-user interface has not, and
//! the domain does not start (seen with libvirt 9.0). So QEMU's device is told itself.

use super::Error;
use super::property::{self, Property};
use crate::resolver::{Nic, Plug};

/// What a guest has without being told.
const DEFAULT: u32 = 1500;

/// The domain with the interface's MTU, where it needs to be said.
pub(super) fn put(text: &str, nic: &Nic) -> Result<String, Error> {
    let mtu = nic.mtu.filter(|mtu| *mtu != DEFAULT);
    let Some(mtu) = mtu.filter(|_| matches!(nic.plug, Plug::VhostUser { .. })) else {
        return Ok(text.to_owned());
    };
    let host_mtu = Property {
        name: "host_mtu",
        kind: "unsigned",
        value: mtu.to_string(),
    };
    property::put(text, &nic.name, &host_mtu)
}
