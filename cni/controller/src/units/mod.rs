//! The pure functions that say which rows a unit wants.
//!
//! All have one form: the index (and, for what has a port, what IPAM assigned) → rows, or a
//! [`Problem`](crate::rows::Problem). None reads a clock, a network or a database.

mod dhcp;
pub mod node;
pub mod pod;
pub mod service;
pub mod subnet;
pub mod vpc;
