//! One netlink socket: requests out, acknowledgements and dumps in.

use std::io;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

use super::change::Change;

/// The kernel refused one change of a batch. Later changes of the batch were tried all the same.
#[derive(Debug, thiserror::Error)]
#[error("cannot {change}")]
pub(crate) struct ChangeError {
    /// What was refused, as a phrase ("add address 10.0.0.2/16 to link 3").
    pub(crate) change: String,
    /// The kernel's reason.
    #[source]
    pub(crate) source: io::Error,
}

/// An rtnetlink socket of the network namespace in which it was opened.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self {
            socket: open(NETLINK_ROUTE)?,
            sequence: 0,
        })
    }

    /// Performs the changes in order, in one system call; reports the first that the kernel refused.
    pub(crate) fn apply(&mut self, changes: &[Change]) -> Result<(), ChangeError> {
        if changes.is_empty() {
            return Ok(());
        }
        let first = self.sequence + 1;
        let failure = |at: usize, source| ChangeError {
            change: changes[at].to_string(),
            source,
        };
        let mut bytes = Vec::with_capacity(256 * changes.len());
        for change in changes {
            let (message, flags) = change.message();
            self.append(&mut bytes, message, NLM_F_REQUEST | NLM_F_ACK | flags);
        }
        self.send(&bytes).map_err(|source| failure(0, source))?;
        let mut open = changes.len();
        let mut refused: Option<(usize, io::Error)> = None;
        while open > 0 {
            for message in self
                .receive()
                .map_err(|source| failure(changes.len() - open, source))?
            {
                let at = message.header.sequence_number.wrapping_sub(first) as usize;
                let NetlinkPayload::Error(answer) = message.payload else {
                    continue;
                };
                if at >= changes.len() {
                    continue;
                }
                open -= 1;
                if answer.code.is_some()
                    && !changes[at].accepts(answer.raw_code())
                    && refused.as_ref().is_none_or(|(first, _)| at < *first)
                {
                    refused = Some((at, answer.to_io()));
                }
            }
        }
        refused.map_or(Ok(()), |(at, source)| Err(failure(at, source)))
    }

    /// Asks one question and returns its one answer.
    pub(super) fn get(&mut self, request: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, request, NLM_F_REQUEST);
        self.send(&bytes)?;
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => return Ok(answer),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }

    /// Asks for a whole table.
    pub(super) fn dump(
        &mut self,
        request: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, request, NLM_F_REQUEST | NLM_F_DUMP);
        self.send(&bytes)?;
        let mut rows = Vec::new();
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(row) => rows.push(row),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Done(_) => return Ok(rows),
                    _ => {}
                }
            }
        }
    }

    fn append(&mut self, bytes: &mut Vec<u8>, request: RouteNetlinkMessage, flags: u16) {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[start..]);
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        to_kernel(&self.socket, bytes)
    }

    fn receive(&self) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        let (bytes, _) = self.socket.recv_from_full()?;
        messages(&bytes)
            .map(|message| NetlinkMessage::deserialize(message).map_err(io::Error::other))
            .collect()
    }
}

/// A non-blocking socket of the calling thread's network namespace.
pub(super) fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    socket.set_cap_ack(true)?;
    Ok(socket)
}

/// Sends a datagram to the kernel, which has answered when this returns.
pub(super) fn to_kernel(socket: &Socket, bytes: &[u8]) -> io::Result<()> {
    socket.send_to(bytes, &SocketAddr::new(0, 0), 0).map(drop)
}

/// Splits a datagram into its netlink messages.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let length = length.max(16);
        let message = bytes.get(..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}
