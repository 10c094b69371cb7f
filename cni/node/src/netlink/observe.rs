//! What the kernel has: links, addresses, routes.

use std::io;

use api::Mac;
use ipnet::IpNet;
use nix::libc;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};

use super::change::Route;
use super::socket::Netlink;

/// A network link as the kernel has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// Its index, unique in its namespace.
    pub(crate) index: u32,
    /// Its name.
    pub(crate) name: String,
    /// Whether it is one end of a veth pair.
    pub(crate) veth: bool,
    /// Whether it is a tap (or tun).
    pub(crate) tap: bool,
    /// The bridge that has it.
    pub(crate) bridge: Option<u32>,
    /// What somebody wrote to it.
    pub(crate) alias: Option<String>,
    /// Its MAC address, for Ethernet-like links.
    pub(crate) mac: Option<Mac>,
    /// Its MTU, bytes.
    pub(crate) mtu: u32,
    /// Whether it is set up.
    pub(crate) up: bool,
    /// Whether its far end is up, too.
    pub(crate) carrier: bool,
    /// Of a veth: the index of its far end, in the namespace that this one is in.
    pub(crate) peer: Option<u32>,
    /// Of a device's own link: the device, as its bus names it (a PCI address). Nobody can change it.
    pub(crate) parent: Option<String>,
}

impl Netlink {
    /// The link of that name, if there is one.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut request = LinkMessage::default();
        request
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(request)
    }

    /// The link of that index, if there is one.
    pub(crate) fn link_at(&mut self, index: u32) -> io::Result<Option<Link>> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        self.one_link(request)
    }

    fn one_link(&mut self, request: LinkMessage) -> io::Result<Option<Link>> {
        match self.get(Message::GetLink(request)) {
            Ok(Message::NewLink(message)) => Ok(Some(link(&message))),
            Ok(_) => Err(io::Error::other(
                "the kernel answered a link request with something else",
            )),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All links of the namespace.
    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let rows = self.dump(Message::GetLink(LinkMessage::default()))?;
        Ok(rows
            .iter()
            .filter_map(|row| match row {
                Message::NewLink(message) => Some(link(message)),
                _ => None,
            })
            .collect())
    }

    /// The addresses of a link, link-local ones included.
    pub(crate) fn addresses(&mut self, index: u32) -> io::Result<Vec<IpNet>> {
        let rows = self.dump(Message::GetAddress(AddressMessage::default()))?;
        Ok(rows
            .iter()
            .filter_map(|row| match row {
                Message::NewAddress(message) if message.header.index == index => address(message),
                _ => None,
            })
            .collect())
    }

    /// The unicast routes of the main table that leave through a link, both families.
    pub(crate) fn routes(&mut self, index: u32) -> io::Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let rows = self.dump(Message::GetRoute(request))?;
            routes.extend(rows.iter().filter_map(|row| match row {
                Message::NewRoute(message) => route(message).filter(|route| route.link == index),
                _ => None,
            }));
        }
        Ok(routes)
    }
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        veth: false,
        tap: false,
        bridge: None,
        alias: None,
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        peer: None,
        parent: None,
    };
    let (mut parent, mut made) = (None, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.bridge = Some(*index),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::Address(bytes) => {
                link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            LinkAttribute::ParentDevName(device) => parent = Some(device.clone()),
            LinkAttribute::LinkInfo(infos) => {
                made = infos.iter().any(|i| matches!(i, LinkInfo::Kind(_)));
                let is = |kind| infos.contains(&LinkInfo::Kind(kind));
                (link.veth, link.tap) = (is(InfoKind::Veth), is(InfoKind::Tun));
            }
            _ => {}
        }
    }
    // A link that somebody made over another one may have that one's device.
    link.parent = parent.filter(|_| !made);
    link
}

fn address(message: &AddressMessage) -> Option<IpNet> {
    let of = |wanted: fn(&AddressAttribute) -> Option<std::net::IpAddr>| {
        message.attributes.iter().find_map(wanted)
    };
    // On a point-to-point link IFA_ADDRESS is the peer's; IFA_LOCAL, where present, is always ours.
    let ip = of(|a| {
        if let AddressAttribute::Local(ip) = a {
            Some(*ip)
        } else {
            None
        }
    })
    .or_else(|| {
        of(|a| {
            if let AddressAttribute::Address(ip) = a {
                Some(*ip)
            } else {
                None
            }
        })
    })?;
    IpNet::new(ip, message.header.prefix_len).ok()
}

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    };
    let any = match header.address_family {
        AddressFamily::Inet => std::net::IpAddr::from([0; 4]),
        _ => std::net::IpAddr::from([0; 16]),
    };
    let (mut dst, mut via, mut link, mut source) = (any, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => dst = ip(address)?,
            RouteAttribute::Gateway(address) => via = ip(address),
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::PrefSource(address) => source = ip(address),
            _ => {}
        }
    }
    let dst = IpNet::new(dst, header.destination_prefix_length).ok()?;
    let onlink = header
        .flags
        .contains(rtnetlink::packet_route::route::RouteFlags::Onlink);
    Some(Route {
        dst,
        via,
        link: link?,
        source,
        onlink,
    })
}
