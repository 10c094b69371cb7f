//! What keeps pods from being plugged, said in sentences. Pure.

use std::net::IpAddr;

/// What was seen of the chassis and its neighbours.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Why the local Open vSwitch database is not usable; `None` = it is.
    pub(crate) vswitch_trouble: Option<String>,
    /// Why the southbound database is not usable; `None` = it is.
    pub(crate) southbound_trouble: Option<String>,
    /// Encapsulation addresses of our Chassis row; `None` = there is no such row.
    pub(crate) registered: Option<Vec<IpAddr>>,
    /// The chassis that holds our encapsulation address, when that is not ours.
    pub(crate) address_taken_by: Option<String>,
    /// datapath_type of br-int; `None` = there is no br-int.
    pub(crate) datapath_type: Option<String>,
    /// MTU of the link that has the encapsulation address; `None` = no link has it.
    pub(crate) underlay_mtu: Option<u32>,
}

/// What is expected.
#[derive(Debug, Clone)]
pub(crate) struct Expected<'a> {
    pub(crate) chassis: &'a str,
    pub(crate) encap_ip: IpAddr,
    pub(crate) datapath_type: &'a str,
    pub(crate) southbound: &'a str,
}

/// One sentence for each thing that is missing; empty = ready.
pub(crate) fn problems(expected: &Expected<'_>, seen: &Seen) -> Vec<String> {
    let Expected {
        chassis,
        encap_ip,
        datapath_type,
        southbound,
    } = expected;
    let mut problems = Vec::new();
    if let Some(trouble) = &seen.vswitch_trouble {
        problems.push(format!(
            "the local Open vSwitch database cannot be used ({trouble}): is ovsdb-server running, and its socket mounted?"
        ));
    } else {
        match seen.datapath_type.as_deref() {
            None => problems.push(
                "bridge br-int does not exist: ovn-controller makes it; is ovn-controller running on this node?".to_owned(),
            ),
            // An empty column means the kernel's datapath.
            Some(held) if held == *datapath_type || (held.is_empty() && *datapath_type == "system") => {}
            Some(held) => problems.push(format!(
                "bridge br-int has datapath_type {held:?} and --datapath-type says {datapath_type:?}: ovn-controller changes it when it runs; otherwise correct the flag"
            )),
        }
    }
    if let Some(trouble) = &seen.southbound_trouble {
        problems.push(format!(
            "the southbound database at {southbound} cannot be used ({trouble}): is it running, does the firewall let its port pass, is the certificate in the identity directory valid?"
        ));
    } else {
        match (&seen.registered, &seen.address_taken_by) {
            (None, Some(holder)) => problems.push(format!(
                "chassis {chassis} is not in the southbound database, because chassis {holder} has its encapsulation address {encap_ip}: remove the old one (ovn-sbctl chassis-del {holder}) or correct --encap-ip"
            )),
            (None, None) => problems.push(format!(
                "chassis {chassis} is not in the southbound database: is ovn-controller running on this node, and may its certificate (CN {chassis}) connect?"
            )),
            (Some(addresses), _) if !addresses.contains(encap_ip) => problems.push(format!(
                "chassis {chassis} is registered with encapsulation address {addresses:?} and not yet with {encap_ip}: ovn-controller has not taken up the new address"
            )),
            (Some(_), _) => {}
        }
    }
    if seen.underlay_mtu.is_none() {
        problems.push(format!(
            "no network link of this node has the encapsulation address {encap_ip}: correct --encap-ip (default: the Node's status.hostIP)"
        ));
    }
    problems
}

/// The largest MTU that a pod may have over an underlay of `underlay` bytes: Geneve with OVN's option takes 58 bytes over IPv4
/// (20 IP, 8 UDP, 16 Geneve, 14 inner Ethernet) and 78 over IPv6.
pub(crate) fn pod_mtu(underlay: u32, encap_ip: IpAddr) -> u32 {
    underlay.saturating_sub(if encap_ip.is_ipv4() { 58 } else { 78 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seen: &Seen) -> Vec<String> {
        let expected = Expected {
            chassis: "n1",
            encap_ip: "198.18.0.1".parse().unwrap(),
            datapath_type: "system",
            southbound: "ssl:198.18.0.9:6642",
        };
        problems(&expected, seen)
    }

    fn good() -> Seen {
        Seen {
            registered: Some(vec!["198.18.0.1".parse().unwrap()]),
            datapath_type: Some("system".to_owned()),
            underlay_mtu: Some(1500),
            ..Seen::default()
        }
    }

    #[test]
    fn all_there_is_ready() {
        assert_eq!(check(&good()), Vec::<String>::new());
        assert_eq!(
            check(&Seen {
                datapath_type: Some(String::new()),
                ..good()
            }),
            Vec::<String>::new()
        );
    }

    #[rstest::rstest]
    #[case(Seen { vswitch_trouble: Some("no such file".into()), ..good() }, "is ovsdb-server running")]
    #[case(Seen { southbound_trouble: Some("refused".into()), ..good() }, "ssl:198.18.0.9:6642")]
    #[case(Seen { registered: None, ..good() }, "is ovn-controller running")]
    #[case(Seen { registered: None, address_taken_by: Some("old".into()), ..good() }, "ovn-sbctl chassis-del old")]
    #[case(Seen { registered: Some(vec!["198.18.0.7".parse().unwrap()]), ..good() }, "198.18.0.7")]
    #[case(Seen { datapath_type: None, ..good() }, "br-int does not exist")]
    #[case(Seen { datapath_type: Some("netdev".into()), ..good() }, "netdev")]
    #[case(Seen { underlay_mtu: None, ..good() }, "--encap-ip")]
    fn each_thing_missing_is_one_sentence(#[case] seen: Seen, #[case] says: &str) {
        let problems = check(&seen);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(says), "{problems:?}");
    }

    #[test]
    fn geneve_overhead() {
        assert_eq!(pod_mtu(1500, "198.18.0.1".parse().unwrap()), 1442);
        assert_eq!(pod_mtu(1500, "fd00::1".parse().unwrap()), 1422);
    }
}
