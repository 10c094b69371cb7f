//! The engine as a program, with real qemu-storage-daemons and real clients of their exports.
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod faults;
mod lifecycle;
mod world;
