//! What can be asked of the kernel, and the message that asks for it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use api::Mac;
use ipnet::IpNet;
use nix::libc;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkVfInfo,
    VfInfo, VfInfoMac,
};
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};

use super::bridge::Wire;

/// A pair of virtual Ethernet links: one end here, the other in another network namespace, down.
///
/// (The far end can't be born up: it does not know its peer yet, and veth_open of the kernel refuses.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Veth {
    /// Name of the end in the socket's own namespace.
    pub(crate) name: String,
    /// MTU of both ends, bytes.
    pub(crate) mtu: u32,
    /// Length of the transmit queue of both ends, packets.
    pub(crate) queue: u32,
    /// Whether this end is up from its birth.
    pub(crate) up: bool,
    /// Name of the far end.
    pub(crate) peer: String,
    /// Its MAC address; none = the kernel's choice.
    pub(crate) peer_mac: Option<Mac>,
    /// Namespace of the far end: a descriptor that stays open until the change is applied.
    pub(crate) peer_netns: RawFd,
}

/// A link's way into another network namespace: there it has another name, and is down until it is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    /// The link's index here.
    pub(crate) link: u32,
    /// The other namespace: a descriptor that stays open until the change is applied.
    pub(crate) netns: RawFd,
    /// Its name there.
    pub(crate) name: String,
}

/// A route of the main table through one link.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Route {
    /// Destination; the default route is `0.0.0.0/0` or `::/0`.
    pub(crate) dst: IpNet,
    /// Next hop; none = the destination is on the link.
    pub(crate) via: Option<IpAddr>,
    /// Index of the link.
    pub(crate) link: u32,
    /// Preferred source address of packets that this machine sends.
    pub(crate) source: Option<IpAddr>,
    /// The next hop is reachable on the link though no prefix of it says so.
    pub(crate) onlink: bool,
}

/// One change of the kernel's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Creates a pair; refused when a link of either name exists.
    AddVeth(Veth),
    /// Deletes a link by name; none of that name is fine.
    DeleteLink {
        /// The link's name.
        name: String,
    },
    /// Sets a link up.
    SetUp {
        /// The link's index.
        link: u32,
    },
    /// Adds an address without duplicate address detection; one that is there is left as it is.
    AddAddress {
        /// The link's index.
        link: u32,
        /// Address and prefix.
        address: IpNet,
    },
    /// Removes an address; none is fine.
    DeleteAddress {
        /// The link's index.
        link: u32,
        /// Address and prefix.
        address: IpNet,
    },
    /// Adds a route; refused when one to that destination exists.
    AddRoute(Route),
    /// Adds a route or replaces the one to that destination.
    ReplaceRoute(Route),
    /// Removes a route; none is fine.
    DeleteRoute(Route),
    /// Sets a link down.
    SetDown {
        /// The link's index.
        link: u32,
    },
    /// Sets a link's MTU.
    SetMtu {
        /// The link's index.
        link: u32,
        /// Bytes.
        mtu: u32,
    },
    /// Sets a link's MAC address.
    SetMac {
        /// The link's index.
        link: u32,
        /// The address.
        mac: Mac,
    },
    /// Gives a link another name; refused when another link has it. The link must be down.
    Rename {
        /// The link's index.
        link: u32,
        /// The new name.
        name: String,
    },
    /// Sets the MAC address of a virtual function, by its physical one: it has no link of its own.
    SetVfMac {
        /// The index of the physical function's link.
        link: u32,
        /// As the physical function counts it.
        number: u32,
        /// The address; zeros: the card's choice.
        mac: Mac,
    },
    /// Moves a link into another network namespace. Refused with the link moved, but not renamed, when a link of that name
    /// is there.
    Move(Move),
    /// A change of a bridge.
    Bridge(Wire),
}

impl Change {
    /// The request and its flags.
    pub(super) fn message(&self) -> (Message, u16) {
        match self {
            Self::AddVeth(veth) => (Message::NewLink(veth.message()), NLM_F_CREATE | NLM_F_EXCL),
            Self::DeleteLink { name } => {
                let mut link = LinkMessage::default();
                link.attributes.push(LinkAttribute::IfName(name.clone()));
                (Message::DelLink(link), 0)
            }
            Self::SetUp { link } => (Message::SetLink(up(*link)), 0),
            Self::SetDown { link } => {
                let mut message = up(*link);
                message.header.flags = LinkFlags::empty();
                (Message::SetLink(message), 0)
            }
            Self::SetMtu { link, mtu } => {
                (Message::SetLink(with(*link, LinkAttribute::Mtu(*mtu))), 0)
            }
            Self::SetMac { link, mac } => (
                Message::SetLink(with(*link, LinkAttribute::Address(mac.0.to_vec()))),
                0,
            ),
            Self::Rename { link, name } => (
                Message::SetLink(with(*link, LinkAttribute::IfName(name.clone()))),
                0,
            ),
            Self::SetVfMac { link, number, mac } => {
                let mac = VfInfoMac::new(*number, &mac.0);
                let function = LinkVfInfo(vec![VfInfo::Mac(mac)]);
                let list = LinkAttribute::VfInfoList(vec![function]);
                (Message::SetLink(with(*link, list)), 0)
            }
            Self::Move(step) => (Message::SetLink(step.message()), 0),
            Self::Bridge(wire) => wire.message(),
            Self::AddAddress { link, address } => (
                Message::NewAddress(address_message(*link, *address)),
                NLM_F_CREATE | NLM_F_EXCL,
            ),
            Self::DeleteAddress { link, address } => {
                (Message::DelAddress(address_message(*link, *address)), 0)
            }
            Self::AddRoute(route) => (
                Message::NewRoute(route.message()),
                NLM_F_CREATE | NLM_F_EXCL,
            ),
            Self::ReplaceRoute(route) => (
                Message::NewRoute(route.message()),
                NLM_F_CREATE | NLM_F_REPLACE,
            ),
            Self::DeleteRoute(route) => (Message::DelRoute(route.message()), 0),
        }
    }

    /// Whether an error of the kernel means that the wanted state holds anyhow.
    pub(super) fn accepts(&self, code: i32) -> bool {
        let errno = code.abs();
        match self {
            Self::DeleteLink { .. } => errno == libc::ENODEV,
            Self::AddAddress { .. } => errno == libc::EEXIST,
            Self::DeleteAddress { .. } => errno == libc::EADDRNOTAVAIL,
            Self::DeleteRoute(_) => errno == libc::ESRCH,
            _ => false,
        }
    }
}

impl Veth {
    fn message(&self) -> LinkMessage {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![LinkAttribute::IfName(self.peer.clone())];
        if let Some(mac) = self.peer_mac {
            peer.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        }
        peer.attributes.extend([
            LinkAttribute::Mtu(self.mtu),
            LinkAttribute::TxQueueLen(self.queue),
            LinkAttribute::NetNsFd(self.peer_netns),
        ]);
        let mut link = LinkMessage::default();
        if self.up {
            link.header.flags = LinkFlags::Up;
            link.header.change_mask = LinkFlags::Up;
        }
        link.attributes = vec![
            LinkAttribute::IfName(self.name.clone()),
            LinkAttribute::Mtu(self.mtu),
            LinkAttribute::TxQueueLen(self.queue),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        link
    }
}

impl Move {
    fn message(&self) -> LinkMessage {
        let mut link = up(self.link);
        link.header.flags = LinkFlags::empty();
        link.attributes = vec![
            LinkAttribute::NetNsFd(self.netns),
            LinkAttribute::IfName(self.name.clone()),
        ];
        link
    }
}

impl Route {
    fn message(&self) -> RouteMessage {
        let scope = if self.via.is_some() {
            RouteScope::Universe
        } else {
            RouteScope::Link
        };
        let mut message = match self.dst {
            IpNet::V4(dst) => {
                let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(dst.network(), dst.prefix_len())
                    .scope(scope);
                match self.via {
                    Some(IpAddr::V4(via)) => route = route.gateway(via),
                    Some(IpAddr::V6(via)) => route = route.via(via),
                    None => {}
                }
                if let Some(IpAddr::V4(source)) = self.source {
                    route = route.pref_source(source);
                }
                route.output_interface(self.link)
            }
            .protocol(RouteProtocol::Static)
            .build(),
            IpNet::V6(dst) => {
                let mut route = RouteMessageBuilder::<Ipv6Addr>::new()
                    .destination_prefix(dst.network(), dst.prefix_len());
                if let Some(IpAddr::V6(via)) = self.via {
                    route = route.gateway(via);
                }
                if let Some(IpAddr::V6(source)) = self.source {
                    route = route.pref_source(source);
                }
                route.output_interface(self.link)
            }
            .protocol(RouteProtocol::Static)
            .build(),
        };
        if self.onlink && self.via.is_some() {
            message.header.flags |= rtnetlink::packet_route::route::RouteFlags::Onlink;
        }
        message
    }
}

fn up(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

fn with(index: u32, attribute: LinkAttribute) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes.push(attribute);
    link
}

/// OVN's addresses are unique by allocation: duplicate address detection would only cost a second.
fn address_message(link: u32, address: IpNet) -> AddressMessage {
    let (prefix, mut message) = match address {
        IpNet::V4(net) => (
            net.prefix_len(),
            AddressMessageBuilder::<Ipv4Addr>::new()
                .address(net.addr(), net.prefix_len())
                .build(),
        ),
        IpNet::V6(net) => (
            net.prefix_len(),
            AddressMessageBuilder::<Ipv6Addr>::new()
                .address(net.addr(), net.prefix_len())
                .build(),
        ),
    };
    message.header.index = link;
    message.header.prefix_len = prefix;
    if address.addr().is_ipv6() {
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddVeth(veth) => write!(f, "create veth pair {}/{}", veth.name, veth.peer),
            Self::DeleteLink { name } => write!(f, "delete link {name}"),
            Self::SetUp { link } => write!(f, "set link {link} up"),
            Self::SetDown { link } => write!(f, "set link {link} down"),
            Self::SetMtu { link, mtu } => write!(f, "set the MTU of link {link} to {mtu}"),
            Self::SetMac { link, mac } => write!(f, "set the MAC address of link {link} to {mac}"),
            Self::Rename { link, name } => write!(f, "rename link {link} to {name}"),
            Self::SetVfMac { link, number, mac } => {
                write!(
                    f,
                    "set the MAC address of virtual function {number} of link {link} to {mac}"
                )
            }
            Self::Move(step) => write!(
                f,
                "move link {} into another network namespace as {}",
                step.link, step.name
            ),
            Self::Bridge(wire) => write!(f, "{wire}"),
            Self::AddAddress { link, address } => write!(f, "add address {address} to link {link}"),
            Self::DeleteAddress { link, address } => {
                write!(f, "remove address {address} from link {link}")
            }
            Self::AddRoute(route) | Self::ReplaceRoute(route) => write!(f, "add {route}"),
            Self::DeleteRoute(route) => write!(f, "remove {route}"),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route {}", self.dst)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        write!(f, " on link {}", self.link)
    }
}
