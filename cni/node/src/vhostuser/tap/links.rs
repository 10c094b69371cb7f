//! The links of a tap in the pod's namespace. All of it runs on a thread that is inside, or as a child of one.
//!
//! The tap is made by iproute2's `ip`: the kernel makes taps by an ioctl alone. It is persistent, and its owner may attach to it without any
//! privilege, which is what a machine's process has.

use std::process::{Command, Stdio};

use api::Mac;
use cni_bin::code;

use super::Tap;
use crate::error::Error;
use crate::netlink::{Change, Netlink, Wire};
use crate::plumb::{Offload, checksum_off, kernel, no_socket};
use crate::sysctl;

/// What the alias of a tap of ours begins with; the machine's MAC address follows.
const ALIAS: &str = "outboard ";

/// The alias of a tap: who writes the machine's definition reads there which MAC address the port has.
pub(super) fn alias(mac: Mac) -> String {
    format!("{ALIAS}{mac}")
}

/// Sets up the pod's end of the veth pair: it has no address, and says nothing of its own.
pub(super) fn silence(ifname: &str, offload: Offload) -> Result<(), Error> {
    sysctl::silence(ifname)?;
    if offload.checksum_off {
        checksum_off(ifname)?;
    }
    Ok(())
}

/// Makes the bridge.
pub(super) fn bridge(tap: &Tap) -> Result<(), Error> {
    let add = Wire::Add {
        name: tap.bridge.clone(),
        mtu: tap.mtu,
    };
    open()?.apply(&[Change::Bridge(add)])?;
    Ok(sysctl::silence(&tap.bridge)?)
}

/// Makes the tap, of that owner.
pub(super) fn make(tap: &Tap, uid: u32, gid: u32) -> Result<(), Error> {
    let (uid, gid) = (uid.to_string(), gid.to_string());
    let mut arguments = vec!["tuntap", "add", "dev", &tap.name, "mode", "tap"];
    arguments.extend(["user", &uid, "group", &gid, "vnet_hdr"]);
    // Who attaches to it says the same, or is refused: one queue is no "multi".
    arguments.extend((tap.queues > 1).then_some("multi_queue"));
    let mut command = Command::new("ip");
    command.args(&arguments).env("LC_ALL", "C");
    command.stdin(Stdio::null());
    let output = command.output().map_err(|why| {
        Error::new(
            code::IO_FAILURE,
            format!("The program `ip`, which makes taps, cannot be run: {why}."),
            "cni-node's image has it; outside of it install iproute2.",
        )
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(
        code::IO_FAILURE,
        format!("`ip {}`: {}.", arguments.join(" "), said.trim()),
        "See that /dev/net/tun is there (modprobe tun) and that cni-node's pod is privileged; \"busy\" means that somebody else has made a \
         link of that name in the pod.",
    ))
}

/// Joins both to the bridge and sets all up. `mac` is the machine's.
pub(super) fn join(tap: &Tap, ifname: &str, mac: Mac) -> Result<(), Error> {
    sysctl::silence(&tap.name)?;
    let mut netlink = open()?;
    let mut index = |name: &str| {
        let found = netlink.link(name);
        let found = found.and_then(|link| link.ok_or_else(|| std::io::ErrorKind::NotFound.into()));
        found
            .map(|link| link.index)
            .map_err(|why| kernel(&format!("look at link {name}"), &why))
    };
    let (end, bridge, machine) = (index(ifname)?, index(&tap.bridge)?, index(&tap.name)?);
    let changes = [
        Change::SetMtu {
            link: machine,
            mtu: tap.mtu,
        },
        Change::Bridge(Wire::Alias {
            link: machine,
            alias: alias(mac),
        }),
        Change::Bridge(Wire::Join { link: end, bridge }),
        Change::Bridge(Wire::Join {
            link: machine,
            bridge,
        }),
        Change::SetUp { link: end },
        Change::SetUp { link: machine },
        Change::SetUp { link: bridge },
    ];
    Ok(netlink.apply(&changes)?)
}

/// Removes tap and bridge; none is fine. Without our bridge a tap of that name is somebody else's.
pub(super) fn remove(tap: &Tap) -> Result<(), Error> {
    let mut netlink = open()?;
    let there = netlink.link(&tap.bridge);
    let there = there.map_err(|why| kernel("look at the pod's links", &why))?;
    if there.is_none() {
        return Ok(());
    }
    let delete = |name: &String| Change::DeleteLink { name: name.clone() };
    // The bridge last: it is what tells that the tap is ours.
    netlink.apply(&[delete(&tap.name)])?;
    Ok(netlink.apply(&[delete(&tap.bridge)])?)
}

pub(super) fn open() -> Result<Netlink, Error> {
    Netlink::open().map_err(|why| no_socket(&why))
}
