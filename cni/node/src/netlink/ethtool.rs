//! Offload features of a link, over generic netlink (`ETHTOOL_MSG_FEATURES_SET`, linux/ethtool_netlink.h).
//!
//! With OVS's userspace datapath a veth end must compute its checksums itself: vswitchd reads packets from a raw
//! socket and would pass on the unfinished ones. The wire is written by hand: three attributes deep, one request.

use std::io;
use std::sync::OnceLock;

use rtnetlink::packet_core::DefaultNla;
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_GENERIC;

use super::socket::open;
use super::wire::{NLM_F_ACK, answer, attribute, nested, send, text};

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
    let command = [ETHTOOL_MSG_FEATURES_SET, 1, 0, 0];
    send(&socket, family, NLM_F_ACK, command, &body)?;
    answer(&socket, |_| ())
}

fn family(socket: &Socket) -> io::Result<u16> {
    let name = [text(CTRL_ATTR_FAMILY_NAME, "ethtool")];
    let command = [CTRL_CMD_GETFAMILY, 1, 0, 0];
    send(socket, GENL_ID_CTRL, NLM_F_ACK, command, &name)?;
    let mut family = None;
    answer(socket, |attributes| {
        if let Some([low, high, ..]) = attribute(attributes, CTRL_ATTR_FAMILY_ID) {
            family = Some(u16::from_ne_bytes([*low, *high]));
        }
    })?;
    family.ok_or_else(|| io::Error::other("the kernel has no ethtool netlink family"))
}
