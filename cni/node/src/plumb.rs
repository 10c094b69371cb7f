//! The kernel's side of an attachment: the veth pair, and everything inside the pod's namespace.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use cni_bin::code;
use tokio::sync::oneshot;

use crate::attachment::is_host_link;
use crate::error::{Error, chain};
use crate::netlink::{Change, ChangeError, Netlink, Route, Veth, transmit_checksum_off};
use crate::netns::Netns;
use crate::sysctl;
use crate::wiring::Wiring;

/// The usual length of an Ethernet link's transmit queue; veth's own default would depend on the kernel.
const QUEUE: u32 = 1000;

/// What is done to every interface of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Offload {
    /// Let the interface compute its checksums itself: OVS's userspace datapath needs it.
    pub(crate) checksum_off: bool,
}

/// Makes the pair and sets up its end in the pod. `host_ready` fires as soon as the host's end exists, so that the host's
/// side can go on meanwhile. Nothing is undone here: the caller deletes the host's end.
pub(crate) async fn plumb(
    netns: &Netns,
    host: &Netns,
    wiring: &Wiring,
    offload: Offload,
    host_ready: oneshot::Sender<()>,
) -> Result<(), Error> {
    let (wiring, host) = (wiring.clone(), host.fd());
    let name = wiring.id.host_link();
    // The far end is born in the host's namespace: all of the pod's side is done from inside.
    let made = netns
        .run(move || inside(&wiring, &host, offload, host_ready))
        .await??;
    if made == Made::HostLinkExists {
        return Err(Error::new(
            code::TRY_AGAIN_LATER,
            format!(
                "Link {name} of an earlier attempt for the same sandbox and interface is still on the host."
            ),
            "It is removed by a DEL, or by cni-node within a minute; the runtime tries again by itself.",
        ));
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Made {
    Interface,
    HostLinkExists,
}

fn inside(
    wiring: &Wiring,
    host: &OwnedFd,
    offload: Offload,
    host_ready: oneshot::Sender<()>,
) -> Result<Made, Error> {
    let ifname = &wiring.id.ifname;
    let mut netlink = Netlink::open().map_err(|why| kernel("open a netlink socket", &why))?;
    let pair = Veth {
        name: ifname.clone(),
        mac: wiring.mac,
        mtu: wiring.mtu,
        queue: QUEUE,
        peer: wiring.id.host_link(),
        peer_netns: host.as_raw_fd(),
    };
    let made = netlink.apply(&[Change::AddVeth(pair)]);
    let found = netlink
        .link(ifname)
        .map_err(|why| kernel("look at the new link", &why))?;
    let link = match (made, found) {
        (Ok(()), Some(link)) => link.index,
        (Err(error), found) if is_exists(&error) => {
            return found.map_or(Ok(Made::HostLinkExists), |_| Err(exists(ifname)));
        }
        (Err(error), _) => return Err(error.into()),
        (Ok(()), None) => {
            return Err(kernel("find the new link", &io::ErrorKind::NotFound.into()));
        }
    };
    // Nobody listens any more when the ADD has been given up; it is undone then.
    let _ = host_ready.send(());
    if offload.checksum_off {
        transmit_checksum_off(ifname)
            .map_err(|why| kernel(&format!("turn checksum offload off on {ifname}"), &why))?;
    }
    sysctl::prepare(ifname, wiring.ips.iter().any(|ip| ip.addr().is_ipv6()))?;
    let addresses = wiring
        .ips
        .iter()
        .map(|ip| Change::AddAddress { link, address: *ip });
    let routes = wiring.routes.iter().map(|route| {
        Change::AddRoute(Route {
            dst: route.dst,
            via: Some(route.via),
            link,
            source: None,
            onlink: !wiring.ips.iter().any(|ip| ip.contains(&route.via)),
        })
    });
    let changes: Vec<_> = addresses
        .chain([Change::SetUp { link }])
        .chain(routes)
        .collect();
    netlink.apply(&changes)?;
    Ok(Made::Interface)
}

/// Deletes the host's end, and with it the pod's; none is fine. The kernel waits for its readers: not on the runtime.
pub(crate) async fn unplumb(host: &Netns, host_link: String) -> Result<(), Error> {
    host.run(move || {
        let mut netlink = Netlink::open().map_err(|why| kernel("open a netlink socket", &why))?;
        Ok(netlink.apply(&[Change::DeleteLink { name: host_link }])?)
    })
    .await?
}

/// Sets up the host's end.
pub(crate) async fn raise(host: &Netns, host_link: String, offload: Offload) -> Result<(), Error> {
    host.run(move || {
        let mut netlink = Netlink::open().map_err(|why| kernel("open a netlink socket", &why))?;
        let found = netlink
            .link(&host_link)
            .map_err(|why| kernel("look at the new link", &why))?;
        let link = found
            .ok_or_else(|| kernel("find the new link", &io::ErrorKind::NotFound.into()))?
            .index;
        if offload.checksum_off {
            transmit_checksum_off(&host_link).map_err(|why| {
                kernel(&format!("turn checksum offload off on {host_link}"), &why)
            })?;
        }
        Ok(netlink.apply(&[Change::SetUp { link }])?)
    })
    .await?
}

/// The names of all attachments' links on the host.
pub(crate) async fn host_links(host: &Netns) -> Result<BTreeSet<String>, Error> {
    let links = host.run(|| Netlink::open()?.links()).await?;
    Ok(links
        .map_err(|why| kernel("read the host's links", &why))?
        .into_iter()
        .filter(|link| link.veth && is_host_link(&link.name))
        .map(|link| link.name)
        .collect())
}

fn is_exists(error: &ChangeError) -> bool {
    error.source.raw_os_error() == Some(nix::libc::EEXIST)
}

fn exists(ifname: &str) -> Error {
    Error::new(
        code::REFUSED,
        format!("Interface {ifname} exists already in the sandbox."),
        "An attachment is added once (CNI specification, section \"ADD\"): DEL it first, or choose another CNI_IFNAME.",
    )
}

fn kernel(step: &str, why: &io::Error) -> Error {
    Error::new(
        code::IO_FAILURE,
        format!("Cannot {step}: {}", chain(why)),
        "Look at the kernel's log and at the privileges of cni-node's pod.",
    )
}
