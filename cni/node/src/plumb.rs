//! The kernel's side of an attachment: the veth pair, and everything inside the pod's namespace.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;

use api::Mac;
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

/// Makes the pair and sets up its end in the pod. `host_ready` fires as soon as the host's end is as it shall be, so that
/// OVS can be told meanwhile. Nothing is undone here: the caller deletes the host's end.
///
/// ovs-vswitchd looks at all its ports whenever a link of the host changes. So the pair is born in the host's namespace,
/// where one end can be up at once, and everything else of the host's end is done before OVS hears of it.
pub(crate) async fn plumb(
    netns: &Netns,
    wiring: &Wiring,
    offload: Offload,
    host_ready: oneshot::Sender<()>,
) -> Result<(), Error> {
    let of_wiring = wiring.clone();
    let set_up = move || inside(&of_wiring, offload);
    pair(netns, wiring, Some(wiring.mac), offload, host_ready, set_up).await
}

/// The same with another set-up of the end in the pod, which runs inside, and another MAC address of it; none = the kernel's choice.
pub(crate) async fn pair(
    netns: &Netns,
    wiring: &Wiring,
    peer_mac: Option<Mac>,
    offload: Offload,
    host_ready: oneshot::Sender<()>,
    set_up: impl FnOnce() -> Result<(), Error> + Send + 'static,
) -> Result<(), Error> {
    let pair = Veth {
        name: wiring.id.host_link(),
        mtu: wiring.mtu,
        queue: QUEUE,
        peer: wiring.id.ifname.clone(),
        up: true,
        peer_mac,
        peer_netns: netns.fd().as_raw_fd(),
    };
    let (name, ifname) = (pair.name.clone(), pair.peer.clone());
    let end = ifname.clone();
    let outside = move || {
        let made = outside(pair, offload)?;
        if made == Made::Pair {
            // Nobody listens any more when the ADD has been given up; it is undone then.
            let _ = host_ready.send(());
        }
        Ok(made)
    };
    let inside = move |made: Result<Made, Error>| match made? {
        Made::Pair => set_up().map(|()| None),
        // Which of the two names is taken?
        Made::Nothing => Netlink::open()
            .and_then(|mut netlink| netlink.link(&end))
            .map(|found| Some(found.is_some()))
            .map_err(|why| kernel("look at the pod's links", &why)),
    };
    match netns.run_after(outside, inside).await?? {
        None => Ok(()),
        Some(true) => Err(exists(&ifname)),
        Some(false) => Err(Error::new(
            code::TRY_AGAIN_LATER,
            format!(
                "Link {name} of an earlier attempt for the same sandbox and interface is still on the host."
            ),
            "It is removed by a DEL, or by cni-node within a minute; the runtime tries again by itself.",
        )),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Made {
    Pair,
    /// A link of one of the names exists.
    Nothing,
}

fn outside(pair: Veth, offload: Offload) -> Result<Made, Error> {
    let name = pair.name.clone();
    let mut netlink = Netlink::open().map_err(|why| no_socket(&why))?;
    match netlink.apply(&[Change::AddVeth(pair)]) {
        Err(error) if is_exists(&error) => return Ok(Made::Nothing),
        made => made?,
    }
    sysctl::silence(&name)?;
    if offload.checksum_off {
        checksum_off(&name)?;
    }
    Ok(Made::Pair)
}

/// Sets up an interface that is in the pod, on a thread that is inside the pod's namespace.
pub(crate) fn inside(wiring: &Wiring, offload: Offload) -> Result<(), Error> {
    let ifname = &wiring.id.ifname;
    let mut netlink = Netlink::open().map_err(|why| no_socket(&why))?;
    let link = netlink
        .link(ifname)
        .and_then(|link| link.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(|why| kernel("look at the new link", &why))?
        .index;
    if offload.checksum_off {
        checksum_off(ifname)?;
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
    Ok(netlink.apply(&changes)?)
}

/// Deletes the host's end, and with it the pod's; none is fine. The kernel waits for its readers: not on the runtime.
pub(crate) async fn unplumb(host: &Netns, host_link: String) -> Result<(), Error> {
    host.run(move || {
        let mut netlink = Netlink::open().map_err(|why| no_socket(&why))?;
        Ok(netlink.apply(&[Change::DeleteLink { name: host_link }])?)
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

/// Turns checksum offload off on a link of the calling thread's namespace.
pub(crate) fn checksum_off(link: &str) -> Result<(), Error> {
    transmit_checksum_off(link)
        .map_err(|why| kernel(&format!("turn checksum offload off on {link}"), &why))
}

fn is_exists(error: &ChangeError) -> bool {
    error.source.raw_os_error() == Some(nix::libc::EEXIST)
}

pub(crate) fn exists(ifname: &str) -> Error {
    Error::new(
        code::REFUSED,
        format!("Interface {ifname} exists already in the sandbox."),
        "An attachment is added once (CNI specification, section \"ADD\"): DEL it first, or choose another CNI_IFNAME.",
    )
}

pub(crate) fn no_socket(why: &io::Error) -> Error {
    kernel("open a netlink socket", why)
}

pub(crate) fn kernel(step: &str, why: &io::Error) -> Error {
    Error::new(
        code::IO_FAILURE,
        format!("Cannot {step}: {}", chain(why)),
        "Look at the kernel's log and at the privileges of cni-node's pod.",
    )
}
