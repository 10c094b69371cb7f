//! What the kernel tells unasked: links, addresses, routes, their settings and nftables, as somebody changes them.
//!
//! An event only says where to look. Reading them is cheap on purpose: a node that starts many pods sees thousands.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;

use futures::FutureExt;
use ipnet::IpNet;
use nix::libc;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, TokioSocket};

use super::socket::messages;
use super::wire::{HEADER, HEADERS, attribute, kind, read_text, word};

/// linux/rtnetlink.h, linux/nfnetlink.h: groups that a socket can join.
mod group {
    pub(super) const LINK: u32 = 1;
    pub(super) const IPV4_IFADDR: u32 = 5;
    pub(super) const IPV4_ROUTE: u32 = 7;
    pub(super) const IPV6_IFADDR: u32 = 9;
    pub(super) const IPV6_ROUTE: u32 = 11;
    pub(super) const IPV4_NETCONF: u32 = 24;
    pub(super) const IPV6_NETCONF: u32 = 25;
    pub(super) const NFTABLES: u32 = 7;
}

const RTM_NEWNETCONF: u16 = 80;
const RTM_DELNETCONF: u16 = 81;
const NETCONFA_IFINDEX: u16 = 1;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWGEN: u16 = 15;
const NFPROTO_INET: u8 = 1;
/// The name of the table is attribute 1 of tables, chains, rules, sets and elements alike.
const NFTA_TABLE: u16 = 1;

/// A change in the kernel, made by anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A link is new, has changed, or is gone from this namespace.
    Link {
        /// Its index.
        index: u32,
        /// Its name.
        name: String,
        /// It is no longer here.
        gone: bool,
    },
    /// An address of a link.
    Address {
        /// The link's index.
        link: u32,
    },
    /// A route, of whatever table.
    Route {
        /// Index of the link it leads, or led, to; none = no link or several.
        link: Option<u32>,
        /// Its destination. (A route that is replaced is told of by the new one alone, which may lead elsewhere.)
        dst: IpNet,
    },
    /// A setting below `net/ipv?/conf`: `forwarding`, `rp_filter` and the like. The kernel does not tell of all of them.
    Setting {
        /// The link's index; none = `all` or `default`.
        link: Option<u32>,
    },
    /// Rules of a table of family inet.
    Table {
        /// Its name.
        name: String,
    },
    /// More happened than the socket could hold: anything may have changed.
    Lost,
}

/// A subscription. It belongs to the network namespace in which it was opened.
pub(crate) struct Events {
    socket: TokioSocket,
    parse: fn(&[u8]) -> Option<Event>,
    queue: VecDeque<Event>,
}

impl Events {
    /// Links alone.
    pub(crate) fn links() -> io::Result<Self> {
        Self::open(NETLINK_ROUTE, &[group::LINK], route_event)
    }

    /// Links, addresses, routes and settings.
    pub(crate) fn routing() -> io::Result<Self> {
        let groups = [
            group::LINK,
            group::IPV4_IFADDR,
            group::IPV6_IFADDR,
            group::IPV4_ROUTE,
            group::IPV6_ROUTE,
            group::IPV4_NETCONF,
            group::IPV6_NETCONF,
        ];
        Self::open(NETLINK_ROUTE, &groups, route_event)
    }

    /// nftables.
    pub(crate) fn tables() -> io::Result<Self> {
        Self::open(NETLINK_NETFILTER, &[group::NFTABLES], table_event)
    }

    fn open(
        protocol: isize,
        groups: &[u32],
        parse: fn(&[u8]) -> Option<Event>,
    ) -> io::Result<Self> {
        let mut socket = TokioSocket::new(protocol)?;
        socket.socket_mut().bind_auto()?;
        for group in groups {
            socket.socket_mut().add_membership(*group)?;
        }
        Ok(Self {
            socket,
            parse,
            queue: VecDeque::new(),
        })
    }

    /// Waits for the next event. An error is final. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> io::Result<Event> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(event);
            }
            let received = self.socket.recv_from_full().await;
            self.take(received)?;
        }
    }

    /// The next event if it has happened already.
    pub(crate) fn ready(&mut self) -> io::Result<Option<Event>> {
        while self.queue.is_empty() {
            match self.socket.recv_from_full().now_or_never() {
                None => return Ok(None),
                Some(received) => self.take(received)?,
            }
        }
        Ok(self.queue.pop_front())
    }

    fn take<A>(&mut self, received: io::Result<(Vec<u8>, A)>) -> io::Result<()> {
        match received {
            Ok((bytes, _)) => self.queue.extend(messages(&bytes).filter_map(self.parse)),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                self.queue.push_back(Event::Lost);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// ifinfomsg, ifaddrmsg, rtmsg, netconfmsg.
fn route_event(message: &[u8]) -> Option<Event> {
    let body = message.get(HEADER..)?;
    match kind(message) {
        // A link that leaves a bridge is "deleted" in family AF_BRIDGE.
        kind @ (libc::RTM_NEWLINK | libc::RTM_DELLINK) if *body.first()? == 0 => {
            let name = attribute(body.get(16..)?, libc::IFLA_IFNAME)?;
            Some(Event::Link {
                index: word(body, 4)?,
                name: read_text(name),
                gone: kind == libc::RTM_DELLINK,
            })
        }
        libc::RTM_NEWADDR | libc::RTM_DELADDR => Some(Event::Address {
            link: word(body, 4)?,
        }),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            let attributes = body.get(12..)?;
            Some(Event::Route {
                link: attribute(attributes, libc::RTA_OIF).and_then(|index| word(index, 0)),
                dst: destination(body, attribute(attributes, libc::RTA_DST))?,
            })
        }
        RTM_NEWNETCONF | RTM_DELNETCONF => {
            let index = word(attribute(body.get(4..)?, NETCONFA_IFINDEX)?, 0)?;
            Some(Event::Setting {
                link: (index.cast_signed() > 0).then_some(index),
            })
        }
        _ => None,
    }
}

fn destination(body: &[u8], address: Option<&[u8]>) -> Option<IpNet> {
    let [family, length, ..] = body else {
        return None;
    };
    let any = || match i32::from(*family) {
        libc::AF_INET => Some(IpAddr::from([0; 4])),
        libc::AF_INET6 => Some(IpAddr::from([0; 16])),
        _ => None,
    };
    let address = match address {
        Some(bytes) => address_of(bytes)?,
        None => any()?,
    };
    IpNet::new(address, *length).ok()
}

/// An address of 4 or 16 bytes.
pub(super) fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// nfgenmsg.
fn table_event(message: &[u8]) -> Option<Event> {
    let kind = kind(message);
    let of_table = kind >> 8 == NFNL_SUBSYS_NFTABLES && kind & 0xff != NFT_MSG_NEWGEN;
    if !of_table || *message.get(HEADER)? != NFPROTO_INET {
        return None;
    }
    Some(Event::Table {
        name: read_text(attribute(message.get(HEADERS..)?, NFTA_TABLE)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::sandbox::{sandboxed, sh};

    async fn until(events: &mut Events, wanted: &Event) {
        while events.next().await.unwrap() != *wanted {}
    }

    #[test]
    fn the_kernel_tells_what_others_change() {
        sandboxed(
            "netlink::events::tests::the_kernel_tells_what_others_change",
            async {
                let mut routing = Events::routing().unwrap();
                let mut tables = Events::tables().unwrap();
                assert_eq!(routing.ready().unwrap(), None);
                let link = |gone| Event::Link {
                    index: 77,
                    name: "near".to_owned(),
                    gone,
                };
                let route = |dst: &str| Event::Route {
                    link: Some(77),
                    dst: dst.parse().unwrap(),
                };
                sh("ip link add index 77 name near type veth peer name far
                    ip link set far up
                    ip link set near up
                    ip addr add 100.64.0.2/16 dev near
                    ip route add 10.244.0.0/16 via 100.64.0.1
                    ip route add default via 100.64.0.1
                    ip -6 route add fd01::/112 dev near
                    sysctl -q net.ipv4.conf.near.rp_filter=2 net.ipv4.ip_forward=1
                    nft add table inet outboard
                    nft add table ip outboard-other
                    nft add chain inet outboard postrouting
                    ip link del near");
                let expected = [
                    link(false),
                    Event::Address { link: 77 },
                    route("10.244.0.0/16"),
                    route("0.0.0.0/0"),
                    route("fd01::/112"),
                    Event::Setting { link: Some(77) },
                    Event::Setting { link: None },
                    link(true),
                ];
                for event in expected {
                    until(&mut routing, &event).await;
                }
                let table = Event::Table {
                    name: "outboard".to_owned(),
                };
                let mut told = Vec::new();
                while let Some(event) = tables.ready().unwrap() {
                    told.push(event);
                }
                assert_eq!(told, [table.clone(), table]);
            },
        );
    }

    #[test]
    fn an_overrun_is_told_and_survived() {
        sandboxed(
            "netlink::events::tests::an_overrun_is_told_and_survived",
            async {
                let mut links = Events::links().unwrap();
                sh("for n in $(seq 2000)
                    do echo link set lo mtu $((n + 2000)); done | ip -batch -");
                until(&mut links, &Event::Lost).await;
                while links.ready().unwrap().is_some() {}
                sh("ip link add gone0 type veth peer name gone1; ip link del gone0");
                let mut names = Vec::new();
                while let Some(event) = links.ready().unwrap() {
                    if let Event::Link { name, gone, .. } = event {
                        names.push((name, gone));
                    }
                }
                assert!(names.contains(&("gone0".to_owned(), true)), "{names:?}");
            },
        );
    }
}
