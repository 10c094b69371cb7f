//! Which service addresses the node must serve itself. Pure.
//!
//! OVN serves a VIP where its endpoints are pods. A VIP with an endpoint outside (hostNetwork pods, the API server) does not work
//! from the node's own processes: the reply would come from an address of the host and never see OVN's conntrack (design §4).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// What a service listens for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The spelling of OVN and of nftables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// OVN's default is TCP.
    fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("tcp") => Some(Self::Tcp),
            Some("udp") => Some(Self::Udp),
            Some("sctp") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

/// A VIP that the node serves, and all of its endpoints, pods or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Service {
    pub(crate) protocol: Protocol,
    pub(crate) vip: SocketAddr,
    pub(crate) endpoints: BTreeSet<SocketAddr>,
    /// Every client keeps its endpoint (as long as the endpoints stay the same).
    pub(crate) affinity: bool,
}

/// The part of a southbound Load_Balancer that matters here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadBalancer<'a> {
    pub(crate) protocol: Option<&'a str>,
    pub(crate) vips: &'a BTreeMap<String, String>,
    pub(crate) options: &'a BTreeMap<String, String>,
}

/// The services among `balancers` with an endpoint outside `inside` (pods' and join subnets), in a fixed order.
///
/// A VIP that two rows claim keeps the first in order of their endpoints: a map has one entry a key.
pub(crate) fn served<'a>(
    balancers: impl Iterator<Item = LoadBalancer<'a>>,
    inside: &[IpNet],
) -> Vec<Service> {
    let all: BTreeSet<Service> = balancers.flat_map(|row| of_row(row, inside)).collect();
    let mut services: Vec<Service> = all.into_iter().collect();
    services.dedup_by_key(|service| (service.protocol, service.vip));
    services
}

/// All service addresses of a protocol among `balancers`.
pub(crate) fn addresses<'a>(
    balancers: impl Iterator<Item = LoadBalancer<'a>>,
    protocol: Protocol,
) -> BTreeSet<SocketAddr> {
    balancers
        .filter(|row| Protocol::parse(row.protocol) == Some(protocol))
        .flat_map(|row| row.vips.keys().filter_map(|vip| vip.parse().ok()))
        .collect()
}

fn of_row(row: LoadBalancer<'_>, inside: &[IpNet]) -> Vec<Service> {
    let Some(protocol) = Protocol::parse(row.protocol) else {
        return Vec::new();
    };
    let affinity = row.options.contains_key("affinity_timeout");
    row.vips
        .iter()
        .filter_map(|(vip, endpoints)| {
            let vip: SocketAddr = vip.parse().ok()?;
            let endpoints = parse_endpoints(endpoints, vip.ip());
            let outside = endpoints
                .iter()
                .any(|one| !inside.iter().any(|net| net.contains(&one.ip())));
            outside.then_some(Service {
                protocol,
                vip,
                endpoints,
                affinity,
            })
        })
        .collect()
}

fn parse_endpoints(text: &str, vip: IpAddr) -> BTreeSet<SocketAddr> {
    text.split(',')
        .filter_map(|one| one.trim().parse().ok())
        .filter(|one: &SocketAddr| one.is_ipv4() == vip.is_ipv4())
        .collect()
}

#[cfg(test)]
impl Service {
    /// One for a test.
    pub(super) fn of(protocol: Protocol, vip: &str, endpoints: &[&str]) -> Self {
        Self {
            protocol,
            vip: vip.parse().unwrap(),
            endpoints: endpoints.iter().map(|one| one.parse().unwrap()).collect(),
            affinity: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vips_of(protocol: Option<&str>, pairs: &[(&str, &str)]) -> Vec<String> {
        let vips = pairs
            .iter()
            .map(|(vip, to)| ((*vip).to_owned(), (*to).to_owned()))
            .collect();
        let row = LoadBalancer {
            protocol,
            vips: &vips,
            options: &BTreeMap::new(),
        };
        let inside: Vec<IpNet> = ["10.244.0.0/16", "100.64.0.0/16", "fd00::/64"]
            .iter()
            .map(|net| net.parse().unwrap())
            .collect();
        served([row].into_iter(), &inside)
            .iter()
            .map(|one| format!("{} {} {:?}", one.protocol.name(), one.vip, one.endpoints))
            .collect()
    }

    #[rstest::rstest]
    #[case::pods_are_ovns(None, "10.96.0.1:443", "10.244.0.5:80,10.244.0.6:80", "")]
    #[case::none_is_rejected_by_ovn(None, "10.96.0.1:443", "", "")]
    #[case::api_server(
        None,
        "10.96.0.1:443",
        "198.18.0.2:6443",
        "tcp 10.96.0.1:443 {198.18.0.2:6443}"
    )]
    #[case::mixed_takes_all(
        Some("udp"),
        "10.96.0.1:53",
        "198.18.0.2:53,10.244.0.5:53,198.18.0.2:53",
        "udp 10.96.0.1:53 {10.244.0.5:53, 198.18.0.2:53}"
    )]
    #[case::v6(
        Some("sctp"),
        "[fd01::1]:7",
        "[fd02::1]:8",
        "sctp [fd01::1]:7 {[fd02::1]:8}"
    )]
    #[case::families_do_not_mix(None, "10.96.0.1:443", "[fd02::1]:8", "")]
    #[case::no_port(None, "10.96.0.1", "198.18.0.2", "")]
    #[case::garbage(Some("icmp"), "10.96.0.1:1", "198.18.0.2:1", "")]
    fn one_vip(
        #[case] protocol: Option<&str>,
        #[case] vip: &str,
        #[case] endpoints: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(vips_of(protocol, &[(vip, endpoints)]).join("\n"), expected);
    }

    #[test]
    fn two_rows_with_one_vip_give_one_service() {
        let first = BTreeMap::from([("10.96.0.1:1".to_owned(), "198.18.0.2:1".to_owned())]);
        let second = BTreeMap::from([("10.96.0.1:1".to_owned(), "198.18.0.1:1".to_owned())]);
        let options = BTreeMap::new();
        let row = |vips| LoadBalancer {
            protocol: None,
            vips,
            options: &options,
        };
        let services = served([row(&first), row(&second)].into_iter(), &[]);
        assert_eq!(services.len(), 1);
        assert!(
            services[0]
                .endpoints
                .contains(&"198.18.0.1:1".parse().unwrap())
        );
    }
}
