//! CHECK: is the attachment what its result says? Looks at the kernel and at OVS, changes nothing.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use cni_bin::cni::{CNIResult, Interface};
use cni_bin::code;
use ipnet::IpNet;
use tokio::time::Instant;

use crate::attachment::AttachmentId;
use crate::call::Check;
use crate::error::{Error, chain};
use crate::netlink::{Link, Netlink, Route};
use crate::netns::Netns;
use crate::node::Node;
use crate::vhostuser::{self, pair};

/// ovn-controller takes flows away and puts them back when it is restarted.
pub(crate) const CONVERGENCE: Duration = Duration::from_secs(2);

/// Serves a CHECK.
pub(crate) async fn check(node: &Node, check: &Check, deadline: Instant) -> Result<(), Error> {
    let _alone = node.locks.lock(&check.id.host_link()).await;
    if let Some(record) = node.store.get(&check.id)
        && let Some(socket) = record.socket()
    {
        return vhostuser::check::check(node, check, &record, socket, deadline).await;
    }
    if let Some(record) = node.store.get(&check.id)
        && let Some(tap) = record.tap()
    {
        return vhostuser::tap::check::check(node, check, &record, tap, deadline).await;
    }
    interface(check, "its end on the host is down").await?;
    port(node, &check.id, &check.id.host_link(), deadline).await
}

/// The interface in the sandbox, against the result. `far`: what it means when there is no carrier.
pub(crate) async fn interface(check: &Check, far: &str) -> Result<(), Error> {
    let expected = Expected::of(check)?;
    let netns = Netns::of_pod(&check.netns)?;
    let ifname = check.id.ifname.clone();
    let seen = netns.run(move || look(&ifname)).await?.map_err(|why| {
        Error::new(
            code::IO_FAILURE,
            format!(
                "Cannot read the links of {}: {}",
                check.netns.display(),
                chain(&why)
            ),
            "Look at the privileges of cni-node's pod.",
        )
    })?;
    differences(&expected, seen.as_ref(), far).map_or(Ok(()), |what| Err(differs(&check.id, &what)))
}

/// What a result says about one interface of the sandbox.
#[derive(Debug, Default, PartialEq)]
struct Expected {
    mac: String,
    mtu: Option<u32>,
    addresses: Vec<IpNet>,
    routes: Vec<(IpNet, IpAddr)>,
}

/// What the kernel has.
struct Seen {
    link: Link,
    addresses: BTreeSet<IpNet>,
    routes: Vec<Route>,
}

impl Expected {
    fn of(check: &Check) -> Result<Self, Error> {
        let CNIResult {
            interfaces,
            ips,
            routes,
            ..
        } = &check.prev_result;
        let sandbox = check.netns.display().to_string();
        let ours = |interface: &Interface| {
            interface.name == check.id.ifname && interface.sandbox.as_deref() == Some(&sandbox)
        };
        let Some(index) = interfaces.iter().position(ours) else {
            return Err(Error::new(
                code::CHECK_FAILED,
                format!(
                    "\"prevResult\" lists no interface {} in sandbox {sandbox}.",
                    check.id.ifname
                ),
                "The runtime must pass the result of the ADD; remove and add the container.",
            ));
        };
        let addresses: Vec<IpNet> = ips
            .iter()
            .filter(|ip| ip.interface.is_some_and(|at| at as usize == index))
            .map(|ip| ip.address)
            .collect();
        // A chained plugin may have added routes through other interfaces: those are its own to check.
        let through_us = |via: &IpAddr| addresses.iter().any(|net| net.contains(via));
        let routes = routes
            .iter()
            .filter_map(|route| Some((route.dst, route.gw.filter(through_us)?)))
            .collect();
        let interface = &interfaces[index];
        Ok(Self {
            mac: interface.mac.clone(),
            mtu: interface.mtu,
            addresses,
            routes,
        })
    }
}

fn look(ifname: &str) -> io::Result<Option<Seen>> {
    let mut netlink = Netlink::open()?;
    let Some(link) = netlink.link(ifname)? else {
        return Ok(None);
    };
    let addresses = netlink.addresses(link.index)?.into_iter().collect();
    let routes = netlink.routes(link.index)?;
    Ok(Some(Seen {
        link,
        addresses,
        routes,
    }))
}

/// The first difference, as a clause.
fn differences(expected: &Expected, seen: Option<&Seen>, far: &str) -> Option<String> {
    let Some(seen) = seen else {
        return Some("the interface does not exist".to_owned());
    };
    let mac = seen.link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if !expected.mac.is_empty() && !mac.eq_ignore_ascii_case(&expected.mac) {
        return Some(format!("its MAC address is {mac}, not {}", expected.mac));
    }
    if let Some(mtu) = expected.mtu.filter(|mtu| *mtu != seen.link.mtu) {
        return Some(format!("its MTU is {}, not {mtu}", seen.link.mtu));
    }
    if !seen.link.up {
        return Some("it is down".to_owned());
    }
    if !seen.link.carrier {
        return Some(far.to_owned());
    }
    if let Some(address) = expected
        .addresses
        .iter()
        .find(|net| !seen.addresses.contains(net))
    {
        return Some(format!("it has no address {address}"));
    }
    expected
        .routes
        .iter()
        .find(|(dst, via)| {
            !seen
                .routes
                .iter()
                .any(|route| route.dst == *dst && route.via == Some(*via))
        })
        .map(|(dst, via)| format!("it has no route to {dst} via {via}"))
}

/// Whether Open vSwitch has the attachment's port of that name, and OVN its flows. Of a machine that runs elsewhere OVN has none here.
pub(crate) async fn port(
    node: &Node,
    id: &AttachmentId,
    link: &str,
    deadline: Instant,
) -> Result<(), Error> {
    let deadline = deadline.min(Instant::now() + CONVERGENCE);
    if let Some(error) = node.vswitch.unavailable() {
        return Err(error);
    }
    let mut changed = node.vswitch.changed();
    loop {
        let Some(interface) = node.vswitch.interface(link) else {
            return Err(differs(id, "it has no port in Open vSwitch"));
        };
        let ids = interface.external_ids;
        let is = |key: &str, value: &str| ids.get(key).is_some_and(|found| found == value);
        if !is("sandbox", &id.container) || !is("ifname", &id.ifname) {
            return Err(differs(
                id,
                "its port in Open vSwitch belongs to somebody else",
            ));
        }
        if is("ovn-installed", "true") {
            return Ok(());
        }
        if !crate::wait::change(&mut changed, deadline).await {
            if pair::has_left(node, &ids).await {
                return Ok(());
            }
            return Err(differs(id, "ovn-controller has not installed its flows"));
        }
    }
}

/// The error of a difference.
pub(crate) fn differs(id: &AttachmentId, what: &str) -> Error {
    Error::new(
        code::CHECK_FAILED,
        format!("Interface {id} is not what its result says: {what}."),
        "Recreate the pod; look who changes interfaces on this node.",
    )
}
