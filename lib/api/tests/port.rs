//! Facts survive the databases, and forged or partial rows are errors with a sentence.

#![allow(clippy::unwrap_used, reason = "a test")]

use api::{FactError, Mac, MigrationTarget, NodeFacts, PodPort, PortFacts, Role, Route};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn v4() -> impl Strategy<Value = IpNet> {
    (any::<u32>(), 1_u8..=30).prop_map(|(ip, len)| Ipv4Net::new(ip.into(), len).unwrap().into())
}

fn v6() -> impl Strategy<Value = IpNet> {
    (any::<u128>(), 1_u8..=126).prop_map(|(ip, len)| Ipv6Net::new(ip.into(), len).unwrap().into())
}

fn cidrs() -> impl Strategy<Value = Vec<IpNet>> {
    prop::collection::vec(prop_oneof![v4(), v6()], 0..4)
}

fn role() -> impl Strategy<Value = Role> {
    let pod = (
        "[a-z]{1,8}",
        "[a-z0-9.-]{1,12}",
        "[a-f0-9-]{1,36}",
        "[a-z0-9]{1,15}",
        prop::option::of(("[a-z0-9.-]{1,12}", "[a-f0-9-]{1,36}")),
    )
        .prop_map(|(namespace, name, uid, ifname, target)| {
            Role::Pod(PodPort {
                namespace,
                name,
                uid,
                ifname,
                target: target.map(|(name, uid)| MigrationTarget { name, uid }),
            })
        });
    let node = (cidrs(), cidrs(), cidrs(), cidrs()).prop_map(
        |(pod_cidrs, service_cidrs, join_cidrs, nat_cidrs)| {
            Role::Node(NodeFacts {
                pod_cidrs,
                service_cidrs,
                join_cidrs,
                nat_cidrs,
            })
        },
    );
    prop_oneof![pod, node]
}

fn route() -> impl Strategy<Value = Route> {
    prop_oneof![
        (v4(), any::<u32>()).prop_map(|(dst, via)| (dst, IpAddr::V4(Ipv4Addr::from(via)))),
        (v6(), any::<u128>()).prop_map(|(dst, via)| (dst, IpAddr::V6(Ipv6Addr::from(via)))),
    ]
    .prop_map(|(dst, via)| Route { dst, via })
}

fn ips() -> impl Strategy<Value = Vec<IpNet>> {
    prop_oneof![
        v4().prop_map(|ip| vec![ip]),
        v6().prop_map(|ip| vec![ip]),
        (v4(), v6()).prop_map(|(a, b)| vec![a, b]),
    ]
}

prop_compose! {
    fn facts()(
        chassis in prop::collection::btree_set("[a-z0-9.-]{1,20}", 0..3),
        host in prop::option::of("[a-z0-9.-]{1,20}"),
        role in role(),
        subnet in "[a-z0-9-]{1,20}",
        ips in ips(),
        with_gateways in any::<bool>(),
        routes in prop::collection::vec(route(), 0..4),
        mtu in prop::option::of(68_u32..=65_535),
        default_route in any::<bool>(),
    ) -> PortFacts {
        let mac = Mac::of(ips[0].addr());
        let gateways = if with_gateways { ips.iter().map(IpNet::network).collect() } else { vec![] };
        PortFacts { chassis, host, role, subnet, mac, ips, gateways, routes, mtu, default_route }
    }
}

proptest! {
    #[test]
    fn decode_gives_back_what_was_encoded(facts in facts()) {
        let mut ids = facts.encode();
        ids.insert("outboard".into(), "pod/a/b".into());
        prop_assert_eq!(PortFacts::decode(&ids), Ok(facts));
    }

    #[test]
    fn a_row_without_one_of_its_keys_is_an_error(facts in facts(), pick in any::<prop::sample::Index>()) {
        let mut ids = facts.encode();
        let required: Vec<String> = ids
            .keys()
            .filter(|key| !key.starts_with("node.") && *key != "mtu" && *key != "host")
            .cloned()
            .collect();
        let key = pick.get(&required).clone();
        ids.remove(&key);
        match PortFacts::decode(&ids) {
            Err(FactError::Missing { key: named }) => prop_assert_eq!(named, key),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn rubbish_never_panics(facts in facts(), pick in any::<prop::sample::Index>(), rubbish in ".{0,40}") {
        let mut ids = facts.encode();
        let keys: Vec<String> = ids.keys().cloned().collect();
        ids.insert(pick.get(&keys).clone(), rubbish);
        let _ = PortFacts::decode(&ids);
    }
}

fn sample() -> BTreeMap<String, String> {
    PortFacts {
        chassis: ["n1".to_owned()].into(),
        host: None,
        role: Role::Pod(PodPort {
            namespace: "default".into(),
            name: "web-0".into(),
            uid: "b1c3".into(),
            ifname: "eth0".into(),
            target: None,
        }),
        subnet: "default".into(),
        mac: "0a:58:0a:f4:00:05".parse().unwrap(),
        ips: vec![
            "10.244.0.5/16".parse().unwrap(),
            "fd00:10:244::5/64".parse().unwrap(),
        ],
        gateways: vec![
            "10.244.0.1".parse().unwrap(),
            "fd00:10:244::1".parse().unwrap(),
        ],
        routes: vec![],
        mtu: Some(1400),
        default_route: true,
    }
    .encode()
}

#[test]
fn the_spelling_is_the_contract() {
    let expected: BTreeMap<String, String> = [
        ("default-route", "true"),
        ("gateways", "10.244.0.1 fd00:10:244::1"),
        ("ifname", "eth0"),
        ("ips", "10.244.0.5/16 fd00:10:244::5/64"),
        ("mac", "0a:58:0a:f4:00:05"),
        ("mtu", "1400"),
        ("node.n1", ""),
        ("pod", "default/web-0"),
        ("role", "pod"),
        ("routes", ""),
        ("subnet", "default"),
        ("uid", "b1c3"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    assert_eq!(sample(), expected);
}

#[test]
fn the_host_behind_a_dpu_is_a_key_of_its_own() {
    let mut ids = sample();
    ids.insert("host".into(), "h1".into());
    let facts = PortFacts::decode(&ids).unwrap();
    assert_eq!(facts.host.as_deref(), Some("h1"));
    assert_eq!(facts.encode(), ids);
}

#[test]
fn forged_values_are_refused_with_a_sentence() {
    let cases = [
        ("role", "host", "role is pod or node"),
        ("host", "", "the name of a node"),
        ("pod", "web-0", "namespace/name"),
        ("pod", "a/b/c", "namespace/name"),
        ("ifname", "../../etc", "no name of a network interface"),
        (
            "ifname",
            "sixteen-letters-",
            "no name of a network interface",
        ),
        ("uid", "", "may not be empty"),
        ("mac", "01:00:5e:00:00:01", "no unicast"),
        ("mac", "zz", "six pairs"),
        ("ips", "", "at least one"),
        ("ips", "10.244.0.5/33", "10.244.0.5/33"),
        (
            "ips",
            "10.244.0.5/16 10.244.0.6/16",
            "one IPv4 and/or one IPv6",
        ),
        ("gateways", "192.168.0.1", "lies in the subnet"),
        ("routes", "10.96.0.0/16", "destination=next-hop"),
        ("routes", "10.96.0.0/16=fd00::1", "mixes"),
        ("mtu", "9", "68 to 65535"),
        ("default-route", "maybe", "true or false"),
    ];
    for (key, value, sentence) in cases {
        let mut ids = sample();
        ids.insert(key.into(), value.into());
        let error = PortFacts::decode(&ids).unwrap_err().to_string();
        assert!(
            error.contains(sentence) && error.contains(key),
            "{key}={value}: {error}"
        );
    }
}
