//! `csi-node-host` as kubelet sees it: the program, over its socket, on the kernel's loop devices, in a mount namespace of the
//! test's own.

#![expect(clippy::unwrap_used, reason = "tests end by it")]

mod content;
mod dead;
mod grow;
mod input;
mod kill;
mod kubelet;
mod lifecycle;
mod request;
mod socket;
mod world;
