//! The addresses and MAC addresses of one subnet, both families.

use super::{Assigned, Cursor, Family, PickError};
use api::{Layout, Mac};
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;

/// What an interface asks for; empty for most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Addresses, at most one a family.
    pub ips: Vec<IpAddr>,
    /// The MAC address.
    pub mac: Option<Mac>,
}

/// Why an interface gets nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Nothing is left.
    #[error("all {0} addresses are taken")]
    Full(&'static str),
    /// An address was asked for that lies elsewhere.
    #[error("address {0} was asked for and is not in its CIDRs")]
    Outside(IpAddr),
    /// An address was asked for that is never given out.
    #[error("address {0} was asked for and is excluded, a gateway or otherwise reserved")]
    Reserved(IpAddr),
    /// An address was asked for that another port has.
    #[error("address {0} was asked for and belongs to another port")]
    IpTaken(IpAddr),
    /// A MAC address was asked for that another port has.
    #[error("MAC address {0} was asked for and belongs to another port")]
    MacTaken(Mac),
}

/// A subnet's addresses.
#[derive(Clone, Debug)]
pub struct Pool {
    v4: Option<Family>,
    v6: Option<Family>,
    macs: HashMap<Mac, u32>,
    router: Mac,
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn ip_from(bits: u128, v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(bits.into())
    } else {
        IpAddr::V4((bits as u32).into())
    }
}

/// Ranges of this family that are never given out.
fn reserved(layout: &Layout, also: &[IpAddr], v6: bool) -> Vec<(u128, u128)> {
    let single = |ip: &IpAddr| (bits(*ip), bits(*ip));
    let of_family = |ip: &&IpAddr| ip.is_ipv6() == v6;
    let gateways = layout.gateways.iter().filter(of_family).map(single);
    let also = also.iter().filter(of_family).map(single);
    let excludes = layout.excludes.iter();
    let excludes = excludes
        .filter(|range| range.first.is_ipv6() == v6)
        .map(|range| (bits(range.first), bits(range.last)));
    gateways.chain(also).chain(excludes).collect()
}

impl Pool {
    /// The pool of a subnet, nothing given out yet. `also` are further addresses never given out.
    pub fn new(layout: &Layout, also: &[IpAddr]) -> Self {
        let family = |v6: bool| {
            let cidr = layout.cidrs.iter().find(|c| c.addr().is_ipv6() == v6)?;
            let (network, broadcast) = (bits(cidr.network()), bits(cidr.broadcast()));
            // The first is the network's own (IPv4) or the routers' anycast address (IPv6).
            let last = if v6 { broadcast } else { broadcast - 1 };
            let reserved = reserved(layout, also, v6);
            Some(Family::new(network + 1, last, reserved))
        };
        let router = layout
            .gateways
            .first()
            .map_or(Mac([0; 6]), |ip| Mac::of(*ip));
        Self {
            v4: family(false),
            v6: family(true),
            macs: HashMap::from([(router, 1)]),
            router,
        }
    }

    /// Takes over changed exclusions (CIDRs and gateways cannot change).
    pub fn update(&mut self, layout: &Layout, also: &[IpAddr]) {
        for v6 in [false, true] {
            if let Some(family) = self.family(v6) {
                family.reserve(reserved(layout, also, v6));
            }
        }
    }

    fn family(&mut self, v6: bool) -> Option<&mut Family> {
        if v6 {
            self.v6.as_mut()
        } else {
            self.v4.as_mut()
        }
    }

    /// Gives an interface what it asks for and the next addresses of the families that it does not
    /// mention. All or nothing.
    pub fn assign(&mut self, wish: &Wish) -> Result<Assigned, PoolError> {
        for ip in &wish.ips {
            if self.family(ip.is_ipv6()).is_none() {
                return Err(PoolError::Outside(*ip));
            }
        }
        if let Some(mac) = wish.mac
            && self.macs.contains_key(&mac)
        {
            return Err(PoolError::MacTaken(mac));
        }
        let mut ips: Vec<IpAddr> = Vec::with_capacity(2);
        for v6 in [false, true] {
            let wished = wish.ips.iter().copied().find(|ip| ip.is_ipv6() == v6);
            let Some(family) = self.family(v6) else {
                continue;
            };
            let got = match wished {
                Some(ip) => family
                    .take(bits(ip))
                    .map(|()| ip)
                    .map_err(|error| match error {
                        PickError::Outside => PoolError::Outside(ip),
                        PickError::Reserved => PoolError::Reserved(ip),
                        PickError::Taken | PickError::Full => PoolError::IpTaken(ip),
                    }),
                None => family
                    .pick()
                    .map(|bits| ip_from(bits, v6))
                    .map_err(|_| PoolError::Full(if v6 { "IPv6" } else { "IPv4" })),
            };
            match got {
                Ok(ip) => ips.push(ip),
                Err(error) => {
                    for ip in ips {
                        self.free_ip(ip);
                    }
                    return Err(error);
                }
            }
        }
        let mac = wish.mac.unwrap_or_else(|| self.next_mac(&ips));
        *self.macs.entry(mac).or_default() += 1;
        Ok(Assigned { mac, ips })
    }

    /// The MAC address that follows from the first address, or, where somebody asked for that one
    /// by name, from a hash.
    fn next_mac(&self, ips: &[IpAddr]) -> Mac {
        let Some(first) = ips.first().copied() else {
            return Mac([0; 6]);
        };
        let derived = (1u128..).map(|salt| Mac::of(ip_from(bits(first) ^ (salt << 96), true)));
        std::iter::once(Mac::of(first))
            .chain(derived)
            .find(|mac| !self.macs.contains_key(mac))
            .unwrap_or(Mac::of(first))
    }

    /// Marks what the record says is given out. The addresses that another port has too.
    pub fn mark(&mut self, assigned: &Assigned) -> Vec<IpAddr> {
        *self.macs.entry(assigned.mac).or_default() += 1;
        let taken = |ip: &&IpAddr| {
            let family = self.family(ip.is_ipv6());
            family.is_some_and(|family| !family.mark(bits(**ip)))
        };
        assigned.ips.iter().filter(taken).copied().collect()
    }

    /// Gives back.
    pub fn free(&mut self, assigned: &Assigned) {
        for ip in &assigned.ips {
            self.free_ip(*ip);
        }
        if let Some(holders) = self.macs.get_mut(&assigned.mac) {
            *holders -= 1;
            if *holders == 0 && assigned.mac != self.router {
                self.macs.remove(&assigned.mac);
            }
        }
    }

    fn free_ip(&mut self, ip: IpAddr) {
        if let Some(family) = self.family(ip.is_ipv6()) {
            family.free(bits(ip));
        }
    }

    /// Where a family stands (IPv6 if `v6`).
    pub fn cursor(&self, v6: bool) -> Option<Cursor> {
        let family = if v6 { &self.v6 } else { &self.v4 };
        family.as_ref().map(Family::cursor)
    }

    /// Goes on where a former process stood.
    pub fn restore(&mut self, v6: bool, cursor: Cursor) {
        if let Some(family) = self.family(v6) {
            family.restore(cursor);
        }
    }

    /// Used and available addresses of a family (IPv6 if `v6`).
    pub fn usage(&self, v6: bool) -> Option<(u128, u128)> {
        let family = if v6 { &self.v6 } else { &self.v4 };
        family.as_ref().map(|f| (f.used(), f.available()))
    }
}

/// The address with the prefix length of the network it lies in.
pub fn with_prefix(layout: &Layout, ip: IpAddr) -> Option<IpNet> {
    IpNet::new(ip, layout.cidr_of(ip)?.prefix_len()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::SubnetSpec;

    fn pool(cidrs: &[&str], excludes: &[&str]) -> Pool {
        let mut spec = SubnetSpec::new(cidrs.iter().map(|c| c.parse().unwrap()));
        spec.excludes = excludes.iter().map(|&e| e.into()).collect();
        Pool::new(&spec.layout().unwrap(), &[])
    }

    fn wish(ips: &[&str], mac: Option<&str>) -> Wish {
        Wish {
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            mac: mac.map(|mac| mac.parse().unwrap()),
        }
    }

    fn ips(assigned: &Assigned) -> Vec<String> {
        assigned.ips.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn both_families_and_a_mac_from_the_first() {
        let mut pool = pool(
            &["10.244.0.0/29", "fd00::/64"],
            &["10.244.0.2", "fd00::2..fd00::ff"],
        );
        let got = pool.assign(&Wish::default()).unwrap();
        assert_eq!(ips(&got), ["10.244.0.3", "fd00::100"]);
        assert_eq!(got.mac.to_string(), "0a:58:0a:f4:00:03");
        assert_eq!(pool.usage(false), Some((1, 3)));
    }

    #[test]
    fn a_full_pool_takes_nothing_of_the_other_family() {
        let mut pool = pool(&["10.0.0.0/30", "fd00::/64"], &[]);
        pool.assign(&Wish::default()).unwrap();
        assert_eq!(pool.assign(&Wish::default()), Err(PoolError::Full("IPv4")));
        assert_eq!(pool.usage(true).unwrap().0, 1);
    }

    #[test]
    fn wishes_are_honoured_or_refused_with_a_reason() {
        let mut pool = pool(&["10.0.0.0/24"], &["10.0.0.9"]);
        let got = pool
            .assign(&wish(&["10.0.0.77"], Some("02:00:00:00:00:01")))
            .unwrap();
        assert_eq!(ips(&got), ["10.0.0.77"]);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut refused = |ips: &[&str], mac| pool.assign(&wish(ips, mac)).unwrap_err();
        assert_eq!(
            refused(&["10.0.0.77"], None),
            PoolError::IpTaken(ip("10.0.0.77"))
        );
        assert_eq!(
            refused(&["10.0.0.9"], None),
            PoolError::Reserved(ip("10.0.0.9"))
        );
        assert_eq!(
            refused(&["10.0.0.1"], None),
            PoolError::Reserved(ip("10.0.0.1"))
        );
        assert_eq!(
            refused(&["10.0.0.255"], None),
            PoolError::Outside(ip("10.0.0.255"))
        );
        assert_eq!(
            refused(&["10.1.0.1"], None),
            PoolError::Outside(ip("10.1.0.1"))
        );
        assert_eq!(
            refused(&["fd00::1"], None),
            PoolError::Outside(ip("fd00::1"))
        );
        let mac = "02:00:00:00:00:01";
        assert_eq!(
            refused(&[], Some(mac)),
            PoolError::MacTaken(mac.parse().unwrap())
        );
        assert_eq!(pool.usage(false).unwrap().0, 1);
    }

    #[test]
    fn a_mac_that_somebody_asked_for_is_not_derived_again() {
        let mut pool = pool(&["10.0.0.0/24"], &[]);
        pool.assign(&wish(&["10.0.0.9"], Some("0a:58:0a:00:00:02")))
            .unwrap();
        let got = pool.assign(&Wish::default()).unwrap();
        assert_eq!(ips(&got), ["10.0.0.2"]);
        assert_ne!(got.mac.to_string(), "0a:58:0a:00:00:02");
        pool.free(&got);
        assert_eq!(pool.usage(false).unwrap().0, 1);
    }
}
