//! Connection tracking's UDP flows, over ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
//!
//! The kernel picks a flow's translation by its first packet and keeps it while packets come: a client that keeps sending
//! keeps its endpoint, even one that is gone, until the flow is forgotten.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::libc;
use rtnetlink::packet_core::DefaultNla;
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::events::address_of;
use super::socket::open;
use super::wire::{NLM_F_ACK, NLM_F_DUMP, answer, attribute, nest, send};

const NFNL_SUBSYS_CTNETLINK: u16 = 1 << 8;
const IPCTNL_MSG_CT_GET: u16 = NFNL_SUBSYS_CTNETLINK | 1;
const IPCTNL_MSG_CT_DELETE: u16 = NFNL_SUBSYS_CTNETLINK | 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// A UDP flow of the host's own stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Where the client sends to.
    pub(crate) destination: SocketAddr,
    /// Who answers: where the packets go to. The same without a translation.
    pub(crate) endpoint: SocketAddr,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.destination, self.endpoint)
    }
}

/// Forgets the UDP flows that are `stale`; returns them. Their next packet starts a new flow.
///
/// Flows of the calling thread's network namespace; those of a zone (OVN's, with OVS's kernel datapath) are left alone.
pub(crate) fn forget_udp(stale: impl Fn(&Flow) -> bool) -> io::Result<Vec<Flow>> {
    let socket = open(NETLINK_NETFILTER)?;
    send(&socket, IPCTNL_MSG_CT_GET, NLM_F_DUMP, [0; 4], &[])?;
    let mut found = Vec::new();
    answer(&socket, |attributes| {
        if let Some(entry) = entry(attributes).filter(|entry| stale(&entry.flow)) {
            found.push(entry);
        }
    })?;
    let mut forgotten = Vec::with_capacity(found.len());
    for Entry { flow, key } in found {
        if forget(&socket, flow, &key)? {
            forgotten.push(flow);
        }
    }
    Ok(forgotten)
}

struct Entry {
    flow: Flow,
    /// The original tuple and the identity: an entry that took its place meanwhile has another one.
    key: Vec<DefaultNla>,
}

/// Whether it was still there.
fn forget(socket: &Socket, flow: Flow, key: &[DefaultNla]) -> io::Result<bool> {
    let family = if flow.destination.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let header = [u8::try_from(family).map_err(io::Error::other)?, 0, 0, 0];
    send(socket, IPCTNL_MSG_CT_DELETE, NLM_F_ACK, header, key)?;
    match answer(socket, |_| ()) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn entry(attributes: &[u8]) -> Option<Entry> {
    let original = attribute(attributes, CTA_TUPLE_ORIG)?;
    let reply = attribute(attributes, CTA_TUPLE_REPLY)?;
    let zoned = attribute(attributes, CTA_ZONE).is_some()
        || attribute(original, CTA_TUPLE_ZONE).is_some()
        || attribute(reply, CTA_TUPLE_ZONE).is_some();
    if zoned {
        return None;
    }
    let flow = Flow {
        destination: end(original, [CTA_IP_V4_DST, CTA_IP_V6_DST], CTA_PROTO_DST_PORT)?,
        endpoint: end(reply, [CTA_IP_V4_SRC, CTA_IP_V6_SRC], CTA_PROTO_SRC_PORT)?,
    };
    let id = attribute(attributes, CTA_ID)?;
    let key = vec![
        nest(CTA_TUPLE_ORIG, original.to_vec()),
        DefaultNla::new(CTA_ID, id.to_vec()),
    ];
    Some(Entry { flow, key })
}

/// One end of a tuple; none for other protocols than UDP.
fn end(tuple: &[u8], [v4, v6]: [u16; 2], port: u16) -> Option<SocketAddr> {
    let protocol = attribute(tuple, CTA_TUPLE_PROTO)?;
    if i32::from(*attribute(protocol, CTA_PROTO_NUM)?.first()?) != libc::IPPROTO_UDP {
        return None;
    }
    let port = <[u8; 2]>::try_from(attribute(protocol, port)?).ok()?;
    let addresses = attribute(tuple, CTA_TUPLE_IP)?;
    let address: IpAddr =
        address_of(attribute(addresses, v4).or_else(|| attribute(addresses, v6))?)?;
    Some(SocketAddr::new(address, u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::gateway::tests::sandbox::{sandboxed, sh};

    #[test]
    fn flows_of_a_zone_and_of_other_protocols_are_left_alone() {
        sandboxed(
            "netlink::conntrack::tests::flows_of_a_zone_and_of_other_protocols_are_left_alone",
            async {
                sh("nft 'table inet t {
                    chain raw { type filter hook output priority raw; udp dport 5354 ct zone set 7; }
                    chain seen { type filter hook output priority filter; ct state new accept; }
                }'");
                let server = std::net::TcpListener::bind("127.0.0.1:5355").unwrap();
                let _client = std::net::TcpStream::connect(server.local_addr().unwrap()).unwrap();
                let client = UdpSocket::bind("127.0.0.1:0").unwrap();
                let receivers = [5353, 5354].map(|port| UdpSocket::bind(("127.0.0.1", port)));
                for receiver in receivers {
                    let receiver = receiver.unwrap();
                    client
                        .send_to(b"?", receiver.local_addr().unwrap())
                        .unwrap();
                    receiver.recv_from(&mut [0; 4]).unwrap();
                }
                let flow = Flow {
                    destination: "127.0.0.1:5353".parse().unwrap(),
                    endpoint: "127.0.0.1:5353".parse().unwrap(),
                };
                assert_eq!(forget_udp(|_| false).unwrap(), []);
                assert_eq!(forget_udp(|_| true).unwrap(), [flow]);
                assert_eq!(forget_udp(|_| true).unwrap(), []);
            },
        );
    }
}
