//! A MAC address: parse, print, derive.

use sha2::{Digest, Sha256};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A unicast or multicast MAC address. Prints in lower case with colons, as OVN compares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// A text that is no MAC address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address: write six pairs of hex digits, as 0a:58:0a:f4:00:05")]
pub struct MacError(pub String);

impl Mac {
    /// The address that belongs to `ip`: 0a:58 and the four bytes of an IPv4 address, or 0a:58 and
    /// a hash of an IPv6 one. Unique per IPv4 address within a subnet; with IPv6 as good as a hash.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                Self([0x0a, 0x58, a, b, c, d])
            }
            IpAddr::V6(v6) => {
                let hash = Sha256::digest(v6.octets());
                Self([0x0a, 0x58, hash[0], hash[1], hash[2], hash[3]])
            }
        }
    }

    /// Whether an interface may have it: not a group address and not all zeros.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let error = || MacError(text.to_owned());
        let mut bytes = [0; 6];
        let mut pairs = text.split([':', '-']);
        for byte in &mut bytes {
            let pair = pairs.next().ok_or_else(error)?;
            if pair.len() != 2 || !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(error());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
        }
        if pairs.next().is_some() {
            return Err(error());
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_ovn_writes_it() {
        let mac: Mac = "0A-58-0a:F4:00:05".parse().unwrap();
        assert_eq!(mac.to_string(), "0a:58:0a:f4:00:05");
        assert_eq!(mac, Mac::of("10.244.0.5".parse().unwrap()));
    }

    #[test]
    fn refuses_what_is_no_mac() {
        for bad in [
            "",
            "0a:58",
            "0a:58:0a:f4:00:05:06",
            "0a:58:0a:f4:00:zz",
            "+a:58:0a:f4:00:05",
        ] {
            let error = bad.parse::<Mac>().unwrap_err().to_string();
            assert!(error.contains("six pairs"), "{bad}: {error}");
        }
    }

    #[test]
    fn knows_group_addresses() {
        assert!(!"01:00:5e:00:00:01".parse::<Mac>().unwrap().is_unicast());
        assert!(!"00:00:00:00:00:00".parse::<Mac>().unwrap().is_unicast());
        assert!(Mac::of("fd00::5".parse().unwrap()).is_unicast());
    }
}
