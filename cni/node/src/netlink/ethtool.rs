//! Offload features of a link, over generic netlink (`ETHTOOL_MSG_FEATURES_SET`, linux/ethtool_netlink.h).
//!
//! With OVS's userspace datapath a veth end must compute its checksums itself: vswitchd reads packets from a raw
//! socket and would pass on the unfinished ones. The wire is written by hand: three attributes deep, one request.

use std::io;
use std::sync::OnceLock;

use rtnetlink::packet_core::{DefaultNla, Emitable, Nla};
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_GENERIC;

use super::socket::{messages, open, to_kernel};

const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
const NESTED: u16 = 0x8000;
const NLMSG_ERROR: u16 = 2;
/// nlmsghdr and genlmsghdr.
const HEADERS: usize = 16 + 4;

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_HEADER_DEV_NAME: u16 = 2;
const ETHTOOL_A_HEADER_FLAGS: u16 = 3;
const ETHTOOL_FLAG_OMIT_REPLY: u32 = 1 << 1;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;

/// What `ethtool -K <link> tx off` clears on a veth; segmentation offload falls with it.
const TRANSMIT_CHECKSUMS: [&str; 2] = ["tx-checksum-ip-generic", "tx-checksum-sctp"];

/// Turns transmit checksum offload off on a link of the calling thread's network namespace.
pub(crate) fn transmit_checksum_off(link: &str) -> io::Result<()> {
    let socket = open(NETLINK_GENERIC)?;
    // The family's number is fixed until the next boot.
    static FAMILY: OnceLock<u16> = OnceLock::new();
    let family = match FAMILY.get() {
        Some(family) => *family,
        None => *FAMILY.get_or_init({
            let family = family(&socket)?;
            move || family
        }),
    };
    let header = [
        text(ETHTOOL_A_HEADER_DEV_NAME, link),
        DefaultNla::new(
            ETHTOOL_A_HEADER_FLAGS,
            ETHTOOL_FLAG_OMIT_REPLY.to_ne_bytes().to_vec(),
        ),
    ];
    // A bit that is listed without a value is to be cleared; those not listed stay as they are.
    let bits: Vec<_> = TRANSMIT_CHECKSUMS
        .iter()
        .map(|name| {
            nested(
                ETHTOOL_A_BITSET_BITS_BIT,
                &[text(ETHTOOL_A_BITSET_BIT_NAME, name)],
            )
        })
        .collect();
    let wanted = [nested(ETHTOOL_A_BITSET_BITS, &bits)];
    let body = [
        nested(ETHTOOL_A_FEATURES_HEADER, &header),
        nested(ETHTOOL_A_FEATURES_WANTED, &wanted),
    ];
    send(&socket, family, ETHTOOL_MSG_FEATURES_SET, &body)?;
    answer(&socket, |_| ())
}

fn family(socket: &Socket) -> io::Result<u16> {
    send(
        socket,
        GENL_ID_CTRL,
        CTRL_CMD_GETFAMILY,
        &[text(CTRL_ATTR_FAMILY_NAME, "ethtool")],
    )?;
    let mut family = None;
    answer(socket, |mut attributes| {
        while let [l0, l1, k0, k1, rest @ ..] = attributes {
            let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
            if u16::from_ne_bytes([*k0, *k1]) == CTRL_ATTR_FAMILY_ID && rest.len() >= 2 {
                family = Some(u16::from_ne_bytes([rest[0], rest[1]]));
            }
            attributes = attributes
                .get(length.next_multiple_of(4).max(4)..)
                .unwrap_or_default();
        }
    })?;
    family.ok_or_else(|| io::Error::other("the kernel has no ethtool netlink family"))
}

fn send(socket: &Socket, family: u16, command: u8, body: &[DefaultNla]) -> io::Result<()> {
    let length = HEADERS + body.buffer_len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(
        u32::try_from(length)
            .map_err(io::Error::other)?
            .to_ne_bytes(),
    );
    bytes.extend(family.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    bytes.extend(1u32.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend([command, 1, 0, 0]);
    bytes.resize(length, 0);
    body.emit(&mut bytes[HEADERS..]);
    to_kernel(socket, &bytes)
}

/// Reads until the acknowledgement; hands the attributes of every other message to `each`.
fn answer(socket: &Socket, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        for message in messages(&bytes) {
            if u16::from_ne_bytes([message[4], message[5]]) != NLMSG_ERROR {
                each(message.get(HEADERS..).unwrap_or_default());
                continue;
            }
            let code = message.get(16..20).and_then(|code| code.try_into().ok());
            return match code.map_or(0, i32::from_ne_bytes) {
                0 => Ok(()),
                code => Err(io::Error::from_raw_os_error(code.abs())),
            };
        }
    }
}

fn text(kind: u16, value: &str) -> DefaultNla {
    DefaultNla::new(kind, [value.as_bytes(), &[0]].concat())
}

fn nested<N: Nla>(kind: u16, children: &[N]) -> DefaultNla {
    let mut bytes = vec![0; children.buffer_len()];
    children.emit(&mut bytes);
    DefaultNla::new(kind | NESTED, bytes)
}
