//! ob0 in the node's network stack: addresses, routes, forwarding. `desired` and `plan` are pure; the rest is thin.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use api::names::GATEWAY_IFNAME;
use ipnet::IpNet;

use super::node_port::NodePort;
use crate::netlink::{Change, Link, Netlink, Route};

/// What the kernel is to hold. The MAC address and the MTU are Open vSwitch's to set (columns `mac` and `mtu_request`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) addresses: BTreeSet<IpNet>,
    /// (destination, next hop) through ob0.
    pub(crate) routes: BTreeSet<(IpNet, std::net::IpAddr)>,
    /// (path below /proc/sys, value).
    pub(crate) settings: Vec<(&'static str, &'static str)>,
}

/// What it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) link: Link,
    pub(crate) addresses: BTreeSet<IpNet>,
    pub(crate) routes: Vec<Route>,
    /// Those of the desired settings that have another value.
    pub(crate) wrong_settings: Vec<(PathBuf, &'static str)>,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) settings: Vec<(PathBuf, &'static str)>,
    pub(crate) changes: Vec<Change>,
}

/// The kernel side of the node's port.
pub(crate) fn desired(port: &NodePort) -> Desired {
    let inside = port.facts.pod_cidrs.iter().chain(&port.facts.service_cidrs);
    let routes = inside
        .map(IpNet::trunc)
        .filter_map(|dst| port.gateway_for(&dst).map(|via| (dst, via)))
        .collect();
    let mut settings = vec![
        ("net/ipv4/ip_forward", "1"),
        // Replies to pods' traffic may come in by another link than the route back names.
        ("net/ipv4/conf/ob0/rp_filter", "2"),
    ];
    if port.has_ipv6() {
        settings.extend([
            ("net/ipv6/conf/ob0/disable_ipv6", "0"),
            ("net/ipv6/conf/ob0/accept_ra", "0"),
            ("net/ipv6/conf/all/forwarding", "1"),
        ]);
    }
    Desired {
        addresses: port.addresses.iter().copied().collect(),
        routes,
        settings,
    }
}

/// The difference. Routes with a next hop through ob0 are all ours; the kernel's own (on-link) are not touched.
pub(crate) fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let link = observed.link.index;
    let mut changes = Vec::new();
    for address in observed.addresses.difference(&desired.addresses) {
        if !is_link_local(address) {
            changes.push(Change::DeleteAddress {
                link,
                address: *address,
            });
        }
    }
    // The kernel drops routes together with the address that made their next hop reachable.
    let renumbered = !changes.is_empty();
    for address in desired.addresses.difference(&observed.addresses) {
        changes.push(Change::AddAddress {
            link,
            address: *address,
        });
    }
    if !observed.link.up {
        changes.push(Change::SetUp { link });
    }
    for route in &observed.routes {
        let stale = route
            .via
            .is_some_and(|_| !desired.routes.iter().any(|(dst, _)| *dst == route.dst));
        if stale {
            changes.push(Change::DeleteRoute(route.clone()));
        }
    }
    for (dst, via) in &desired.routes {
        let held = |route: &Route| route.dst == *dst && route.via == Some(*via);
        if renumbered || !observed.routes.iter().any(held) {
            let route = Route {
                dst: *dst,
                via: Some(*via),
                link,
                source: None,
                onlink: false,
            };
            changes.push(Change::ReplaceRoute(route));
        }
    }
    Plan {
        settings: observed.wrong_settings.clone(),
        changes,
    }
}

fn is_link_local(address: &IpNet) -> bool {
    matches!(address, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

/// Reads ob0 and the settings below `sysctl_root` (`/proc/sys`). `None` while there is no ob0.
pub(crate) fn observe(
    netlink: &mut Netlink,
    desired: &Desired,
    sysctl_root: &Path,
) -> io::Result<Option<Observed>> {
    let Some(link) = netlink.link(GATEWAY_IFNAME)? else {
        return Ok(None);
    };
    let addresses = netlink.addresses(link.index)?.into_iter().collect();
    let routes = netlink.routes(link.index)?;
    let mut wrong_settings = Vec::new();
    for (name, value) in &desired.settings {
        let path = sysctl_root.join(name);
        if read_setting(&path)? != *value {
            if *name == "net/ipv6/conf/all/forwarding" {
                wrong_settings.extend(kept_router_advertisements(sysctl_root)?);
            }
            wrong_settings.push((path, *value));
        }
    }
    Ok(Some(Observed {
        link,
        addresses,
        routes,
        wrong_settings,
    }))
}

/// Performs the plan.
///
/// # Errors
/// A sentence that names the first thing the kernel refused.
pub(crate) fn apply(netlink: &mut Netlink, plan: &Plan) -> Result<(), String> {
    for (path, value) in &plan.settings {
        std::fs::write(path, value).map_err(|error| {
            format!(
                "cannot set {} to {value}: {error}; cni-node must run privileged, with the host's /proc/sys writable",
                path.display()
            )
        })?;
    }
    netlink.apply(&plan.changes).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("cannot set up {GATEWAY_IFNAME}: {error}: {cause}; does another program manage this link?")
    })
}

fn read_setting(path: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    Ok(text.trim().to_owned())
}

/// A forwarding host ignores router advertisements unless accept_ra is 2: without this, a node that has its default route from
/// one would lose it.
fn kept_router_advertisements(root: &Path) -> io::Result<Vec<(PathBuf, &'static str)>> {
    let mut settings = Vec::new();
    for entry in std::fs::read_dir(root.join("net/ipv6/conf"))? {
        let entry = entry?;
        let path = entry.path().join("accept_ra");
        if entry.file_name() != GATEWAY_IFNAME
            && read_setting(&path).is_ok_and(|value| value == "1")
        {
            settings.push((path, "2"));
        }
    }
    settings.sort();
    Ok(settings)
}
