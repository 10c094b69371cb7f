//! What a node publishes of the interfaces that it has plugged and of which the API server may know nothing: all
//! but a pod's first.
//!
//! cni-node keeps it in external_ids of its own row of the southbound Chassis_Private; `cni-controller --rebuild`
//! reads it, and nothing else does. OVN's role lets a chassis write that row and no other chassis's, and
//! ovn-controller neither reads nor writes the column. (It reads that of Chassis, on every node.)

use crate::Mac;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Key that says that the node publishes at all, with [`PLUGGED_FORMAT`] as its value.
pub const PLUGGED_KEY: &str = "outboard";
/// The form of the entries.
pub const PLUGGED_FORMAT: &str = "1";
const PREFIX: &str = "outboard/";
const KIND_PREFIX: &str = "outboard.kind/";

/// Key of the entry of an interface of the pod `uid` (as CNI_ARGS carries it).
pub fn plugged_key(uid: &str, ifname: &str) -> String {
    format!("{PREFIX}{uid}/{ifname}")
}

/// Key of how a machine's interface is plugged, in a word. Not for `--rebuild`: for the node that a machine migrates to, which must
/// plug it likewise.
pub fn plugged_kind_key(uid: &str, ifname: &str) -> String {
    format!("{KIND_PREFIX}{uid}/{ifname}")
}

/// Whether the key is one of ours; others in the column are somebody else's.
pub fn is_plugged_key(key: &str) -> bool {
    key == PLUGGED_KEY || key.starts_with(PREFIX) || key.starts_with(KIND_PREFIX)
}

/// An entry: what the interface really has. Prints as `<port> <mac> <address> [<address>]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluggedPort {
    /// Name of the logical switch port that it claims.
    pub lsp: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Its addresses: one or two, IPv4 first.
    pub ips: Vec<IpAddr>,
}

/// A text that is no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form <port> <mac> <address> [<address>]")]
pub struct PluggedError(pub String);

impl fmt::Display for PluggedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.lsp, self.mac)?;
        self.ips.iter().try_for_each(|ip| write!(f, " {ip}"))
    }
}

impl FromStr for PluggedPort {
    type Err = PluggedError;

    fn from_str(text: &str) -> Result<Self, PluggedError> {
        let read = || {
            let mut words = text.split(' ');
            let lsp = words.next().filter(|lsp| !lsp.is_empty())?.to_owned();
            let mac: Mac = words.next()?.parse().ok()?;
            let ips: Vec<IpAddr> = words.map(|ip| ip.parse().ok()).collect::<Option<_>>()?;
            let in_order = match ips.as_slice() {
                [_] => true,
                [first, second] => first.is_ipv4() && second.is_ipv6(),
                _ => false,
            };
            (mac.is_unicast() && in_order).then_some(Self { lsp, mac, ips })
        };
        read().ok_or_else(|| PluggedError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_back() {
        for ips in [&["10.0.0.5"][..], &["fd00::5"], &["10.0.0.5", "fd00::5"]] {
            let port = PluggedPort {
                lsp: "ns/p/storage/net1".into(),
                mac: Mac([2, 0, 0, 0, 0, 1]),
                ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            };
            assert_eq!(port.to_string().parse(), Ok(port));
        }
    }

    #[test]
    fn what_is_no_entry_is_an_error() {
        for text in [
            "",
            "p",
            "p 02:00:00:00:00:01",
            " 02:00:00:00:00:01 10.0.0.5",
            "p 01:00:00:00:00:01 10.0.0.5",
            "p 02:00:00:00:00:01 10.0.0.5/24",
            "p 02:00:00:00:00:01 fd00::5 10.0.0.5",
            "p 02:00:00:00:00:01 10.0.0.5 10.0.0.6",
            "p 02:00:00:00:00:01 10.0.0.5 fd00::5 fd00::6",
            "p 02:00:00:00:00:01  10.0.0.5",
        ] {
            assert!(text.parse::<PluggedPort>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_keys_of_ours_are_ours() {
        assert!(is_plugged_key(PLUGGED_KEY) && is_plugged_key(&plugged_key("u", "net1")));
        assert!(!is_plugged_key("outboards") && !is_plugged_key("neutron:x"));
    }
}
