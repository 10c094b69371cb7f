//! CHECK: the pod's end, the bridge, the tap, device information and port.

use std::io;

use tokio::time::Instant;

use super::super::attach::blocking;
use super::super::device_info;
use super::{Tap, links};
use crate::attachment::Record;
use crate::call::Check;
use crate::check::{differs, port};
use crate::error::Error;
use crate::netlink::{Link, Netlink};
use crate::netns::Netns;
use crate::node::Node;
use crate::plumb::kernel;

/// What the pod's namespace has.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) end: Option<Link>,
    pub(super) bridge: Option<Link>,
    pub(super) tap: Option<Link>,
}

/// Serves a CHECK of an attachment of this kind. The caller holds its lock.
pub(crate) async fn check(
    node: &Node,
    check: &Check,
    record: &Record,
    tap: &Tap,
    deadline: Instant,
) -> Result<(), Error> {
    let different = |what: &str| Err(differs(&check.id, what));
    let sandbox = check.netns.display().to_string();
    let listed = check.prev_result.interfaces.iter().find(|interface| {
        interface.name == check.id.ifname && interface.sandbox.as_deref() == Some(&sandbox)
    });
    let Some(listed) = listed else {
        return different(&format!(
            "\"prevResult\" lists no such interface in sandbox {sandbox}"
        ));
    };
    let mac = &record.port.mac;
    if !listed.mac.is_empty() && !listed.mac.eq_ignore_ascii_case(mac) {
        return different(&format!("its MAC address is {mac}, not {}", listed.mac));
    }
    let netns = Netns::of_pod(&check.netns)?;
    let (wanted, ifname) = (tap.clone(), check.id.ifname.clone());
    let seen = netns.run(move || look(&wanted, &ifname)).await?;
    let seen = seen.map_err(|why| kernel("read the pod's links", &why))?;
    if let Some(what) = differences(tap, &record.port.mac, &seen) {
        return different(&what);
    }
    let file = tap.device_info.clone();
    let told = blocking(move || Ok(file.as_deref().is_none_or(device_info::is_there)));
    if !told.await? {
        return different("its device information is gone");
    }
    port(node, &check.id, &record.link(), deadline).await
}

fn look(tap: &Tap, ifname: &str) -> io::Result<Seen> {
    let mut netlink = Netlink::open()?;
    Ok(Seen {
        end: netlink.link(ifname)?,
        bridge: netlink.link(&tap.bridge)?,
        tap: netlink.link(&tap.name)?,
    })
}

/// The first difference, as a clause. No machine need be there: its tap has no carrier then.
pub(super) fn differences(tap: &Tap, mac: &str, seen: &Seen) -> Option<String> {
    let (bridge, name) = (&tap.bridge, &tap.name);
    let Some(wire) = &seen.bridge else {
        return Some(format!("its bridge {bridge} does not exist"));
    };
    let Some(end) = &seen.end else {
        return Some("the interface does not exist".to_owned());
    };
    let Some(machine) = &seen.tap else {
        return Some(format!("its tap {name} does not exist"));
    };
    if !machine.tap {
        return Some(format!("{name} is no tap"));
    }
    let alias = mac.parse().map(links::alias).unwrap_or_default();
    if machine.alias.as_deref() != Some(&alias) {
        return Some(format!("its tap {name} does not say its MAC address"));
    }
    for (link, what) in [(wire, bridge), (end, &end.name), (machine, name)] {
        if !link.up {
            return Some(format!("{what} is down"));
        }
        if link.mtu != tap.mtu {
            return Some(format!(
                "the MTU of {what} is {}, not {}",
                link.mtu, tap.mtu
            ));
        }
        if link.index != wire.index && link.bridge != Some(wire.index) {
            return Some(format!("{what} is not on its bridge {bridge}"));
        }
    }
    (!end.carrier).then(|| "its end on the host is down".to_owned())
}
