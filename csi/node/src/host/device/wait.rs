//! Waiting for a disk: the kernel tells when one comes or changes.

use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket,
};
use proto::deadline::Deadline;
use tokio::net::UnixDatagram;
use tokio::time::Instant;

use super::super::error::Error;
use super::super::request::Published;
use super::find::{Found, Miss, find};
use super::sysfs::{Numbers, Sysfs};

/// The kernel's own group of uevents.
const KERNEL: u32 = 1;
/// The kernel drops events when its queue is full: look again after so long, event or not.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The disk of `wanted`, once it is there, if that is until then.
///
/// # Errors
///
/// [`Error::Unavailable`] when it did not come in time.
pub(crate) async fn published(
    sysfs: &Sysfs,
    wanted: &Published,
    until: Instant,
) -> Result<Found, Error> {
    let result = wait(until, || match find(sysfs, wanted) {
        Ok(found) => Ok(Ok(found)),
        Err(Miss::Refused(why)) => Ok(Err(Error::Refused(why))),
        Err(Miss::Absent(seen)) => Err(seen),
    })
    .await;
    match result {
        Ok(found) => found,
        Err(seen) => Err(Error::Unavailable(format!(
            "the disk of volume {} did not appear in time: {seen}. The volume's attachment to this node is \
             broken; see the log of csi-node-dpu and volume-attacher for it",
            wanted.uuid
        ))),
    }
}

/// The size of a disk, once it has at least `bytes`.
///
/// # Errors
///
/// [`Error::Unavailable`] when it did not grow in time.
pub(crate) async fn grown(
    sysfs: &Sysfs,
    numbers: Numbers,
    bytes: u64,
    deadline: Deadline,
) -> Result<u64, Error> {
    let until = deadline.last_start();
    let result = wait(until, || {
        let name = sysfs.name(numbers).ok_or(0_u64)?;
        match sysfs.bytes(&name).unwrap_or_default() {
            now if now >= bytes => Ok(now),
            now => Err(now),
        }
    })
    .await;
    result.map_err(|now| {
        let name = sysfs.name(numbers).unwrap_or_else(|| numbers.to_string());
        Error::Unavailable(format!(
            "/dev/{name} has {now} bytes, {bytes} are wanted: the disk has not grown yet; see the log of \
             volume-attacher for the resize"
        ))
    })
}

/// Looks until there is something. The last sight otherwise.
async fn wait<T, S>(until: Instant, look: impl Fn() -> Result<T, S>) -> Result<T, S> {
    if let Ok(found) = look() {
        return Ok(found);
    }
    let events = Events::listen();
    loop {
        // Listening first, then looking: nothing is missed in between.
        match look() {
            Err(seen) if Instant::now() >= until => return Err(seen),
            Err(_) => {}
            found => return found,
        }
        let next = until.min(Instant::now() + LOOK_AGAIN);
        let event = async {
            match &events {
                Ok(events) => events.next().await,
                Err(_) => std::future::pending().await,
            }
        };
        // Both ends mean: look again.
        let _ = tokio::time::timeout_at(next, event).await;
    }
}

/// A socket of netlink. To receive, the runtime needs to know of a socket's family no more than that it has datagrams.
struct Events(UnixDatagram);

impl Events {
    fn listen() -> std::io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
        Ok(Self(UnixDatagram::from_std(fd.into())?))
    }

    /// Returns after an event about a block device, or when some were lost.
    async fn next(&self) {
        let mut buffer = [0; 8192];
        while let Ok(length) = self.0.recv(&mut buffer).await {
            if about_disks(&buffer[..length]) {
                return;
            }
        }
    }
}

fn about_disks(event: &[u8]) -> bool {
    event
        .split(|byte| *byte == 0)
        .any(|line| line == b"SUBSYSTEM=block")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernels_events_about_disks_are_heard() {
        let events = Events::listen().unwrap();
        let told = async {
            // Asks the kernel to tell of a disk that every machine has: loop devices are there before they are used.
            std::fs::write("/sys/block/loop0/uevent", "change").unwrap();
            events.next().await;
        };
        tokio::time::timeout(Duration::from_secs(10), told)
            .await
            .unwrap();
    }
}
