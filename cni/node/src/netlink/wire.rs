//! Netlink messages written and read by hand: for what rtnetlink's crates do not cover (ethtool, conntrack), and where
//! most messages are thrown away after a look at one field (notifications).

use std::io;

use rtnetlink::packet_core::{DefaultNla, Emitable, Nla};
use rtnetlink::sys::Socket;

use super::socket::{messages, to_kernel};

pub(super) const NLM_F_REQUEST: u16 = 0x1;
pub(super) const NLM_F_ACK: u16 = 0x4;
pub(super) const NLM_F_DUMP: u16 = 0x300;

/// nlmsghdr.
pub(super) const HEADER: usize = 16;
/// nlmsghdr, and genlmsghdr or nfgenmsg.
pub(super) const HEADERS: usize = HEADER + 4;

const NESTED: u16 = 0x8000;
/// The two highest bits say how an attribute is coded.
const KIND: u16 = 0x3fff;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Sends one request of generic netlink or netfilter; `second` is the header after the first.
pub(super) fn send(
    socket: &Socket,
    kind: u16,
    flags: u16,
    second: [u8; 4],
    body: &[DefaultNla],
) -> io::Result<()> {
    let length = HEADERS + body.buffer_len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(
        u32::try_from(length)
            .map_err(io::Error::other)?
            .to_ne_bytes(),
    );
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend(1u32.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(second);
    bytes.resize(length, 0);
    body.emit(&mut bytes[HEADERS..]);
    to_kernel(socket, &bytes)
}

/// Reads until the acknowledgement or the end of a dump; hands the attributes of every other message to `each`.
pub(super) fn answer(socket: &Socket, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        for message in messages(&bytes) {
            if !matches!(kind(message), NLMSG_ERROR | NLMSG_DONE) {
                each(message.get(HEADERS..).unwrap_or_default());
                continue;
            }
            return match word(message, HEADER).map_or(0, u32::cast_signed) {
                0 => Ok(()),
                code => Err(io::Error::from_raw_os_error(code.abs())),
            };
        }
    }
}

/// The type of a message.
pub(super) fn kind(message: &[u8]) -> u16 {
    u16::from_ne_bytes([message[4], message[5]])
}

/// Four bytes in the machine's order.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(word))
}

/// The attributes of a message or of an attribute: (type, value).
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1, ..] = bytes else {
            return None;
        };
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let value = bytes.get(4..length)?;
        let kind = u16::from_ne_bytes([*k0, *k1]) & KIND;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of a type.
pub(super) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// The text of an attribute, which ends with a zero.
pub(super) fn read_text(value: &[u8]) -> String {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// An attribute with a text.
pub(super) fn text(kind: u16, value: &str) -> DefaultNla {
    DefaultNla::new(kind, [value.as_bytes(), &[0]].concat())
}

/// An attribute that holds others.
pub(super) fn nested<N: Nla>(kind: u16, children: &[N]) -> DefaultNla {
    let mut bytes = vec![0; children.buffer_len()];
    children.emit(&mut bytes);
    nest(kind, bytes)
}

/// The same of attributes that are bytes already.
pub(super) fn nest(kind: u16, children: Vec<u8>) -> DefaultNla {
    DefaultNla::new(kind | NESTED, children)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let children = [text(3, "ob0"), DefaultNla::new(4, vec![1, 2, 3, 4, 5])];
        let body = [nested(7, &children), text(1, "a")];
        let mut bytes = vec![0; body.as_slice().buffer_len()];
        body.as_slice().emit(&mut bytes);
        let inner = attribute(&bytes, 7).unwrap();
        assert_eq!(attribute(inner, 3).map(read_text), Some("ob0".to_owned()));
        assert_eq!(attribute(inner, 4), Some(&[1, 2, 3, 4, 5][..]));
        assert_eq!(attribute(&bytes, 1).map(read_text), Some("a".to_owned()));
        assert_eq!(attribute(&bytes, 2), None);
    }

    proptest! {
        /// Nothing that comes over the socket may end the program, or keep it in a loop.
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4);
        }
    }
}
