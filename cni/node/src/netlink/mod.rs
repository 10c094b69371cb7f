//! The kernel's links, addresses, routes, offloads and tracked UDP flows, over netlink; and its word when they change.
//!
//! The only user of netlink. A [`Netlink`] belongs to the network namespace in which it was opened and stays there
//! whatever thread uses it later. Calls are synchronous and never wait for anybody: the kernel answers a request while
//! it is being sent, so the socket is non-blocking and a missing answer is an error. Several changes travel in one
//! system call, because an ADD makes about eight of them.

mod bridge;
mod change;
mod conntrack;
mod ethtool;
mod events;
mod observe;
mod socket;
mod wire;

pub(crate) use bridge::Wire;
pub(crate) use change::{Change, Move, Route, Veth};
pub(crate) use conntrack::{Flow, forget_udp};
pub(crate) use ethtool::transmit_checksum_off;
pub(crate) use events::{Event, Events};
pub(crate) use observe::Link;
pub(crate) use socket::{ChangeError, Netlink};

#[cfg(test)]
mod tests;
