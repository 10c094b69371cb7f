//! Tells when PCI devices come, go, or change their driver: the kernel's uevents (netlink family KOBJECT_UEVENT).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// The kernel's own messages; udev's are another group.
const KERNEL: u32 = 1;
/// UEVENT_BUFFER_SIZE is 2 KiB.
const MESSAGE: usize = 8 << 10;

/// A socket that is readable when something has happened. An async caller waits on its descriptor.
#[derive(Debug)]
pub struct PciEvents {
    socket: OwnedFd,
}

impl PciEvents {
    /// Listens from now on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
        Ok(Self { socket })
    }

    /// Takes all that has happened, without waiting; whether any of it was about a PCI device.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take(&self) -> io::Result<bool> {
        let mut message = [0; MESSAGE];
        let mut concerns = false;
        loop {
            match recv(self.socket.as_raw_fd(), &mut message, MsgFlags::empty()) {
                Ok(length) => concerns |= is_of_pci(&message[..length]),
                // Some were lost.
                Err(Errno::ENOBUFS) => concerns = true,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(concerns),
                Err(why) => return Err(why.into()),
            }
        }
    }
}

impl AsRawFd for PciEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// `add@/devices/…`, then words `KEY=value`, each with a zero at its end.
fn is_of_pci(message: &[u8]) -> bool {
    message
        .split(|byte| *byte == 0)
        .any(|word| word == b"SUBSYSTEM=pci")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pci_devices_concern_us() {
        let of = |subsystem: &str| {
            format!("bind@/devices/x\0ACTION=bind\0SUBSYSTEM={subsystem}\0SEQNUM=7\0").into_bytes()
        };
        assert!(is_of_pci(&of("pci")));
        assert!(!is_of_pci(&of("pci_express")));
        assert!(!is_of_pci(&of("net")));
        assert!(!is_of_pci(b""));
    }

    #[test]
    fn nothing_has_happened_yet() {
        let events = PciEvents::open().unwrap();
        events.take().unwrap();
    }
}
