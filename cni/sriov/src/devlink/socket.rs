//! A socket of generic netlink: one question at a time.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::message::{Answer, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, messages, request};

/// The kernel answers within the call, unless a driver holds a device's lock.
const PATIENCE: i64 = 5;
/// More than the kernel puts into one datagram.
const DATAGRAM: usize = 64 << 10;
/// Of a dump while ports come and go.
const ATTEMPTS: u32 = 5;

#[derive(Debug)]
pub(super) struct Socket {
    socket: OwnedFd,
    sequence: u32,
}

/// Whether the kernel says that there is nothing to answer for.
fn is_absent(code: Errno) -> bool {
    matches!(code, Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP)
}

impl Socket {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkGeneric,
        )?;
        setsockopt(
            &socket,
            sockopt::ReceiveTimeout,
            &TimeVal::seconds(PATIENCE),
        )?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Asks for one row. None: there is no such thing.
    pub(super) fn ask(
        &mut self,
        family: u16,
        command: u8,
        body: &[u8],
    ) -> io::Result<Option<Vec<u8>>> {
        match self.conversation(family, command, NLM_F_ACK, body) {
            Ok((rows, _)) => Ok(rows.into_iter().next()),
            Err(code) if is_absent(code) => Ok(None),
            Err(code) => Err(code.into()),
        }
    }

    /// Asks for all rows, as they are at one moment.
    pub(super) fn dump(&mut self, family: u16, command: u8) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..ATTEMPTS {
            let (rows, changed) = self.conversation(family, command, NLM_F_DUMP, &[])?;
            if !changed {
                return Ok(rows);
            }
        }
        Err(io::Error::other("it changed all the time"))
    }

    /// The rows of the answer, and whether they changed meanwhile.
    fn conversation(
        &mut self,
        family: u16,
        command: u8,
        flags: u16,
        body: &[u8],
    ) -> Result<(Vec<Vec<u8>>, bool), Errno> {
        self.sequence += 1;
        let asked = request(family, command, flags, self.sequence, body);
        send(self.socket.as_raw_fd(), &asked, MsgFlags::empty())?;
        let mut rows = Vec::new();
        let mut changed = false;
        let mut datagram = vec![0; DATAGRAM];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut datagram, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                // SO_RCVTIMEO.
                Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
                length => length?,
            };
            for message in messages(&datagram[..length]) {
                // What is left of a question that was given up.
                if message.sequence != self.sequence {
                    continue;
                }
                changed |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.answer {
                    Answer::Row(row) => rows.push(row.to_vec()),
                    Answer::End(0) => return Ok((rows, changed)),
                    Answer::End(code) => return Err(Errno::from_raw(-code)),
                    Answer::Overrun => return Err(Errno::ENOBUFS),
                }
            }
        }
    }
}
