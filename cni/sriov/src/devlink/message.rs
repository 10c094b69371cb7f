//! Generic netlink's messages: how requests are written and answers read. No I/O.

/// nlmsghdr and genlmsghdr.
pub(super) const HEADERS: usize = HEADER + 4;
pub(super) const HEADER: usize = 16;

pub(super) const NLM_F_REQUEST: u16 = 0x1;
pub(super) const NLM_F_ACK: u16 = 0x4;
/// In an answer: the table changed while it was being told.
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(super) const NLM_F_DUMP: u16 = 0x300;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
/// The two highest bits of an attribute's type say how it is coded.
const KEY: u16 = 0x3fff;

/// One attribute with its padding.
pub(super) fn attribute(key: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("names are short");
    let mut bytes = Vec::with_capacity(usize::from(length) + 3);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(key.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// One request.
pub(super) fn request(family: u16, command: u8, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADERS + body.len()).expect("requests are short");
    let mut bytes = Vec::with_capacity(HEADERS + body.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(family.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend([command, 1, 0, 0]);
    bytes.extend(body);
    bytes
}

/// What a message of the kernel is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// A row; its attributes.
    Row(&'a [u8]),
    /// The end: 0, or a negated errno.
    End(i32),
    /// The kernel could not keep all of it.
    Overrun,
}

/// A message of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) sequence: u32,
    pub(super) flags: u16,
    pub(super) answer: Answer<'a>,
}

/// The messages of a datagram. What is cut off is left out.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(word(bytes)?).ok()?;
        let message = bytes.get(..length).filter(|_| length >= HEADER)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let kind = half(message.get(4..)?)?;
        let answer = match kind {
            // Of a dump that ends without a word nothing went wrong.
            NLMSG_ERROR | NLMSG_DONE => Answer::End(
                message
                    .get(HEADER..)
                    .and_then(word)
                    .unwrap_or(0)
                    .cast_signed(),
            ),
            NLMSG_OVERRUN => Answer::Overrun,
            _ => Answer::Row(message.get(HEADERS..).unwrap_or_default()),
        };
        Some(Message {
            flags: half(message.get(6..)?)?,
            sequence: word(message.get(8..)?)?,
            answer,
        })
    })
}

/// The value of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value<'a>(&'a [u8]);

impl Value<'_> {
    pub(super) fn byte(self) -> Option<u8> {
        self.0.first().copied()
    }

    pub(super) fn half(self) -> Option<u16> {
        half(self.0)
    }

    pub(super) fn word(self) -> Option<u32> {
        word(self.0)
    }

    pub(super) fn text(self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        String::from_utf8(self.0[..end].to_vec()).ok()
    }
}

/// See [`attributes`].
#[derive(Debug, Clone)]
pub(super) struct Attributes<'a>(&'a [u8]);

/// The attributes of a row, in order.
pub(super) fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes(bytes)
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(half(self.0)?);
        let key = half(self.0.get(2..)?)? & KEY;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((key, Value(value)))
    }
}

fn half(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?))
}

fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let body = attribute(1, b"pci\0");
        let bytes = request(0x1f, 5, NLM_F_DUMP, 7, &body);
        let all: Vec<_> = messages(&bytes).collect();
        let expected = Message {
            sequence: 7,
            flags: NLM_F_REQUEST | NLM_F_DUMP,
            answer: Answer::Row(&body),
        };
        assert_eq!(all, [expected]);
        let mut read = attributes(&body);
        let (key, value) = read.next().unwrap();
        assert_eq!((key, value.text().as_deref()), (1, Some("pci")));
        assert_eq!(read.next(), None);
    }

    #[test]
    fn an_error_has_its_number() {
        let mut bytes = request(NLMSG_ERROR, 0, 0, 1, &[]);
        bytes[HEADER..HEADERS].copy_from_slice(&(-95i32).to_ne_bytes());
        assert_eq!(messages(&bytes).next().unwrap().answer, Answer::End(-95));
    }

    proptest! {
        /// Each attribute is its own, whatever its length and whatever follows.
        #[test]
        fn attributes_are_read_as_written(values in proptest::collection::vec((0..=KEY, proptest::collection::vec(any::<u8>(), 0..20)), 0..8)) {
            let mut bytes = Vec::new();
            for (key, value) in &values {
                bytes.extend(attribute(*key, value));
            }
            let read: Vec<_> = attributes(&bytes).map(|(key, value)| (key, value.0.to_vec())).collect();
            prop_assert_eq!(read, values);
        }

        /// No bytes of a kernel keep us here for ever or go beyond their end.
        #[test]
        fn any_bytes_are_read_to_their_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes) {
                if let Answer::Row(row) = message.answer {
                    attributes(row).count();
                }
            }
            attributes(&bytes).count();
        }
    }
}
