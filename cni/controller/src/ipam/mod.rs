//! Addresses: who has which, and which is given out next. Pure; the northbound rows are the record.
//!
//! A pool never gives out one address twice, prefers what was never given out, then what was freed
//! longest ago, and so has no order by chance. Its cursor is written with the rows, so a restart
//! does not hand out what was just freed.

mod family;
mod ports;
mod subnet;

pub use family::{Cursor, Family, PickError};
pub use ports::{Port, Ports};
pub use subnet::{Pool, PoolError, Wish, with_prefix};

use api::Mac;
use std::net::IpAddr;

/// What an interface has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Its MAC address.
    pub mac: Mac,
    /// Its addresses: one or two, IPv4 first.
    pub ips: Vec<IpAddr>,
}
