//! The kernel's links, addresses, routes and offloads, over netlink.
//!
//! The only user of rtnetlink. A [`Netlink`] belongs to the network namespace in which it was opened and stays there
//! whatever thread uses it later. Calls are synchronous and never wait for anybody: the kernel answers a request while
//! it is being sent, so the socket is non-blocking and a missing answer is an error. Several changes travel in one
//! system call, because an ADD makes about eight of them.

mod change;
mod ethtool;
mod observe;
mod socket;

pub(crate) use change::{Change, Route, Veth};
pub(crate) use ethtool::transmit_checksum_off;
pub(crate) use observe::Link;
pub(crate) use socket::{ChangeError, Netlink};

#[cfg(test)]
mod tests;
