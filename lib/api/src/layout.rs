//! The addresses of a Subnet, parsed: what its spec says once it is believed.
//!
//! The API server has checked the spec by the rules in the CRD; an object from before those rules
//! must still not make anybody panic, so everything is checked again.

use crate::subnet::SubnetSpec;
use ipnet::IpNet;
use std::net::IpAddr;

/// Where a subnet's addresses lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// One or two networks, IPv4 first.
    pub cidrs: Vec<IpNet>,
    /// The gateway of each of `cidrs`, in the same order.
    pub gateways: Vec<IpAddr>,
    /// Addresses that are never given out (the gateways are not among them).
    pub excludes: Vec<AddressRange>,
}

/// Addresses of one family, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    /// The lowest address.
    pub first: IpAddr,
    /// The highest address.
    pub last: IpAddr,
}

/// Why a spec describes no subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field}: {why}")]
pub struct LayoutError {
    /// The field of the spec.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl SubnetSpec {
    /// The addresses that the spec describes.
    pub fn layout(&self) -> Result<Layout, LayoutError> {
        let cidrs = self.networks()?;
        let gateways = self.routers(&cidrs)?;
        let excludes = self
            .excludes
            .iter()
            .map(|text| {
                parse_range(text).ok_or_else(|| LayoutError {
                    field: "excludes",
                    why: format!(
                        "{text:?} is no address, no range as 10.244.0.10..10.244.0.20 and no CIDR"
                    ),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Layout {
            cidrs,
            gateways,
            excludes,
        })
    }

    fn networks(&self) -> Result<Vec<IpNet>, LayoutError> {
        let error = |why: String| LayoutError {
            field: "cidrs",
            why,
        };
        let mut cidrs: Vec<IpNet> = Vec::new();
        for text in &self.cidrs {
            let cidr: IpNet = text
                .parse()
                .map_err(|_| error(format!("{text:?} is no CIDR")))?;
            if cidr != cidr.trunc() {
                return Err(error(format!(
                    "{text} has bits set behind its prefix: write {}",
                    cidr.trunc()
                )));
            }
            if cidr.max_prefix_len() - cidr.prefix_len() < 2 {
                return Err(error(format!(
                    "{text} is too small: it has no room for a gateway and a pod"
                )));
            }
            if cidrs
                .iter()
                .any(|other| same_family(other.addr(), cidr.addr()))
            {
                return Err(error(
                    "two CIDRs of one family: there may be one IPv4 and one IPv6".into(),
                ));
            }
            cidrs.push(cidr);
        }
        if cidrs.is_empty() {
            return Err(error(
                "there is none: write one IPv4 and/or one IPv6 CIDR".into(),
            ));
        }
        cidrs.sort_by_key(|cidr| cidr.addr().is_ipv6());
        Ok(cidrs)
    }

    fn routers(&self, cidrs: &[IpNet]) -> Result<Vec<IpAddr>, LayoutError> {
        let error = |why: String| LayoutError {
            field: "gateways",
            why,
        };
        let mut named: Vec<IpAddr> = Vec::new();
        for text in &self.gateways {
            let gateway: IpAddr = text
                .parse()
                .map_err(|_| error(format!("{text:?} is no address")))?;
            if !cidrs.iter().any(|cidr| is_host_address(cidr, gateway)) {
                return Err(error(format!(
                    "{gateway} is no host address of the subnet's cidrs"
                )));
            }
            if named.iter().any(|other| same_family(*other, gateway)) {
                return Err(error("two gateways of one family".into()));
            }
            named.push(gateway);
        }
        let gateway = |cidr: &IpNet| {
            let given = named
                .iter()
                .copied()
                .find(|ip| same_family(*ip, cidr.addr()));
            given.unwrap_or_else(|| successor(cidr.network()))
        };
        Ok(cidrs.iter().map(gateway).collect())
    }
}

impl Layout {
    /// The network of this address's family, if the address lies in it.
    pub fn cidr_of(&self, ip: IpAddr) -> Option<IpNet> {
        self.cidrs.iter().copied().find(|cidr| cidr.contains(&ip))
    }

    /// Whether a network of `other` overlaps one of this one's.
    pub fn overlaps(&self, other: &Self) -> bool {
        let overlap = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
        self.cidrs
            .iter()
            .any(|a| other.cidrs.iter().any(|b| overlap(a, b)))
    }
}

impl AddressRange {
    /// Whether the address lies between the ends.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.first <= ip && ip <= self.last && same_family(self.first, ip)
    }
}

/// Whether a host may have the address: not the network's own nor, in IPv4, its broadcast address.
fn is_host_address(cidr: &IpNet, ip: IpAddr) -> bool {
    cidr.contains(&ip) && ip != cidr.network() && (ip.is_ipv6() || ip != cidr.broadcast())
}

fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

fn successor(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).wrapping_add(1).into()),
        IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).wrapping_add(1).into()),
    }
}

fn parse_range(text: &str) -> Option<AddressRange> {
    if let Some((first, last)) = text.split_once("..") {
        let first: IpAddr = first.trim().parse().ok()?;
        let last: IpAddr = last.trim().parse().ok()?;
        return (same_family(first, last) && first <= last).then_some(AddressRange { first, last });
    }
    if let Ok(cidr) = text.parse::<IpNet>() {
        return Some(AddressRange {
            first: cidr.network(),
            last: cidr.broadcast(),
        });
    }
    let ip = text.parse().ok()?;
    Some(AddressRange {
        first: ip,
        last: ip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(cidrs: &[&str]) -> SubnetSpec {
        SubnetSpec::new(cidrs.iter().map(|cidr| cidr.parse().unwrap()))
    }

    #[test]
    fn ipv4_comes_first_and_the_first_address_is_the_gateway() {
        let layout = spec(&["fd00:10:244::/64", "10.244.0.0/16"])
            .layout()
            .unwrap();
        assert_eq!(layout.cidrs[0].to_string(), "10.244.0.0/16");
        let gateways: Vec<String> = layout.gateways.iter().map(ToString::to_string).collect();
        assert_eq!(gateways, ["10.244.0.1", "fd00:10:244::1"]);
    }

    #[test]
    fn a_named_gateway_counts_for_its_family() {
        let mut spec = spec(&["10.1.0.0/24", "fd00::/64"]);
        spec.gateways = vec!["10.1.0.254".into()];
        let layout = spec.layout().unwrap();
        assert_eq!(layout.gateways[0].to_string(), "10.1.0.254");
        assert_eq!(layout.gateways[1].to_string(), "fd00::1");
    }

    #[test]
    fn excludes_have_three_forms() {
        let mut spec = spec(&["10.1.0.0/24"]);
        spec.excludes = vec![
            "10.1.0.9".into(),
            "10.1.0.20..10.1.0.30".into(),
            "10.1.0.64/26".into(),
        ];
        let layout = spec.layout().unwrap();
        let within = |ip: &str| {
            layout
                .excludes
                .iter()
                .any(|r| r.contains(ip.parse().unwrap()))
        };
        assert!(within("10.1.0.9") && within("10.1.0.20") && within("10.1.0.30"));
        assert!(within("10.1.0.64") && within("10.1.0.127"));
        assert!(!within("10.1.0.10") && !within("10.1.0.31") && !within("fd00::9"));
    }

    #[test]
    fn nonsense_is_named() {
        let with = |change: fn(&mut SubnetSpec)| {
            let mut spec = spec(&["10.1.0.0/24"]);
            change(&mut spec);
            spec.layout().unwrap_err().to_string()
        };
        assert!(with(|s| s.cidrs = vec![]).contains("there is none"));
        assert!(with(|s| s.cidrs = vec!["x".into()]).contains("no CIDR"));
        assert!(with(|s| s.cidrs = vec!["10.1.0.1/24".into()]).contains("write 10.1.0.0/24"));
        assert!(with(|s| s.cidrs.push("10.2.0.0/24".into())).contains("one family"));
        assert!(with(|s| s.cidrs = vec!["10.1.0.0/31".into()]).contains("too small"));
        assert!(with(|s| s.gateways = vec!["10.2.0.1".into()]).contains("10.2.0.1"));
        assert!(with(|s| s.gateways = vec!["10.1.0.255".into()]).contains("no host address"));
        assert!(with(|s| s.excludes = vec!["10.1.0.9..10.1.0.1".into()]).contains("excludes"));
    }

    #[test]
    fn overlap_is_seen_in_either_direction() {
        let (big, small) = (spec(&["10.1.0.0/16"]), spec(&["fd00::/64", "10.1.2.0/24"]));
        let (big, small) = (big.layout().unwrap(), small.layout().unwrap());
        assert!(big.overlaps(&small) && small.overlaps(&big));
        assert!(!big.overlaps(&spec(&["10.2.0.0/16"]).layout().unwrap()));
    }
}
