use std::collections::{BTreeMap, BTreeSet};

use api::{Mac, MigrationTarget, PodPort, Role};
use proptest::prelude::*;

use super::*;

fn facts(name: &str, uid: &str, ifname: &str, subnet: &str) -> PortFacts {
    PortFacts {
        chassis: BTreeSet::from(["n1".to_owned()]),
        host: None,
        role: Role::Pod(PodPort {
            namespace: "default".into(),
            name: name.into(),
            uid: uid.into(),
            ifname: ifname.into(),
            target: None,
        }),
        subnet: subnet.into(),
        mac: Mac([0x0a, 0x58, 0x0a, 0xf4, 0, 5]),
        ips: vec!["10.244.0.5/16".parse().unwrap()],
        gateways: vec!["10.244.0.1".parse().unwrap()],
        routes: Vec::new(),
        mtu: None,
        default_route: true,
    }
}

fn pod(uid: &str) -> Pod {
    Pod {
        namespace: "default".into(),
        name: "web".into(),
        uid: uid.into(),
    }
}

fn look(
    rows: &[(&str, BTreeMap<String, String>)],
    pod: &Pod,
    ifname: &str,
    subnet: Option<&str>,
) -> Result<Row, Missing> {
    let wanted = Wanted {
        pod,
        ifname,
        subnet,
        host: None,
    };
    find(rows.iter().map(|(name, ids)| (*name, ids)), &wanted)
}

#[test]
fn the_row_is_found_by_uid_and_interface() {
    let rows = [
        (
            "default/web/default",
            facts("web", "u1", "eth0", "default").encode(),
        ),
        (
            "default/web/blue/net1",
            facts("web", "u1", "net1", "blue").encode(),
        ),
        (
            "default/other/default",
            facts("other", "u2", "eth0", "default").encode(),
        ),
    ];
    let found = look(&rows, &pod("u1"), "net1", Some("blue")).unwrap();
    assert_eq!(found.logical_port, "default/web/blue/net1");
    assert_eq!(found.facts.subnet, "blue");
    assert_eq!(
        look(&rows, &pod("u1"), "eth0", None).unwrap().logical_port,
        "default/web/default"
    );
}

#[test]
fn what_is_missing_is_named() {
    let rows = [
        (
            "default/web/default",
            facts("web", "u1", "eth0", "default").encode(),
        ),
        (
            "broken",
            BTreeMap::from([
                ("uid".into(), "u9".into()),
                ("ifname".into(), "eth0".into()),
            ]),
        ),
    ];
    let sentence = |uid: &str, ifname: &str, subnet: Option<&str>| {
        let pod = pod(uid);
        let missing = look(&rows, &pod, ifname, subnet).unwrap_err();
        let error = missing.error(
            &Wanted {
                pod: &pod,
                ifname,
                subnet,
                host: None,
            },
            "n1",
        );
        (error.code, missing.may_come(), error.to_string())
    };
    let (number, wait, text) = sentence("u2", "eth0", None);
    assert!(
        number == 11 && wait && text.contains("earlier pod") && text.contains("u1"),
        "{text}"
    );
    let (number, wait, text) = sentence("u1", "net1", None);
    assert!(
        number == 11 && wait && text.contains("net1; allocated are eth0"),
        "{text}"
    );
    let (number, wait, text) = sentence("u1", "eth0", Some("blue"));
    assert!(
        number == 7 && !wait && text.contains("subnet default") && text.contains("blue"),
        "{text}"
    );
    let (number, wait, text) = sentence("u9", "eth0", None);
    assert!(
        number == 11 && wait && text.contains("port broken") && text.contains("\"role\""),
        "{text}"
    );
    let missing = Missing::NoRow.error(
        &Wanted {
            pod: &pod("u3"),
            ifname: "eth0",
            subnet: None,
            host: None,
        },
        "n1",
    );
    assert!(
        missing
            .to_string()
            .contains("no address is allocated on chassis n1"),
        "{missing}"
    );
}

/// A machine's row while it migrates.
fn migrating(source: (&str, &str), target: (&str, &str), ifname: &str) -> PortFacts {
    let mut facts = facts(source.0, source.1, ifname, "blue");
    facts.chassis.insert("n2".to_owned());
    if let Role::Pod(pod) = &mut facts.role {
        pod.target = Some(MigrationTarget {
            name: target.0.into(),
            uid: target.1.into(),
        });
    }
    facts
}

#[test]
fn a_migrating_machines_row_is_that_of_both_pods_and_of_no_third() {
    let rows = [(
        "default/vm/blue/net1",
        migrating(("vm-a", "u1"), ("vm-b", "u2"), "net1").encode(),
    )];
    let pod = |name: &str, uid: &str| Pod {
        name: name.into(),
        ..pod(uid)
    };
    for pod in [pod("vm-a", "u1"), pod("vm-b", "u2")] {
        let row = look(&rows, &pod, "net1", Some("blue")).unwrap();
        assert_eq!(row.logical_port, "default/vm/blue/net1");
        assert_eq!(
            row.facts.pod().unwrap().is_coming_to(&pod.uid),
            pod.uid == "u2"
        );
        let have = vec!["net1".to_owned()];
        assert_eq!(
            look(&rows, &pod, "net2", None),
            Err(Missing::NoInterface { have })
        );
        let other = look(&rows, &pod, "net1", Some("red"));
        assert!(matches!(other, Err(Missing::OtherSubnet { .. })));
    }
    // The target of a migration that is over, and a source of the same name as before.
    assert_eq!(
        look(&rows, &pod("vm-c", "u3"), "net1", None),
        Err(Missing::NoRow)
    );
    let uid = "u1".to_owned();
    assert_eq!(
        look(&rows, &pod("vm-a", "u9"), "net1", None),
        Err(Missing::EarlierPod { uid })
    );
    // Machines behind a DPU do not migrate, whatever a row says.
    let mut of_host = migrating(("vm-a", "u1"), ("vm-b", "u2"), "net1");
    of_host.host = Some("h1".into());
    let ids = of_host.encode();
    let target = pod("vm-b", "u2");
    for host in [None, Some("h1")] {
        let wanted = Wanted {
            pod: &target,
            ifname: "net1",
            subnet: None,
            host,
        };
        assert_eq!(find([("p", &ids)], &wanted), Err(Missing::NoRow));
    }
}

#[test]
fn a_host_sees_its_own_rows_alone_and_the_dpu_its_own() {
    let of = |host: Option<&str>, uid: &str| {
        let mut facts = facts("web", uid, "eth0", "default");
        facts.host = host.map(str::to_owned);
        facts.encode()
    };
    let rows = [
        ("of-h1", of(Some("h1"), "u1")),
        ("of-h2", of(Some("h2"), "u2")),
        ("of-dpu", of(None, "u3")),
    ];
    let look = |host: Option<&str>, uid: &str| {
        let pod = pod(uid);
        let wanted = Wanted {
            pod: &pod,
            ifname: "eth0",
            subnet: None,
            host,
        };
        let found = find(rows.iter().map(|(name, ids)| (*name, ids)), &wanted);
        found
            .map(|row| row.logical_port)
            .map_err(|missing| missing.error(&wanted, "d1").to_string())
    };
    for (host, uid, name) in [
        (Some("h1"), "u1", "of-h1"),
        (Some("h2"), "u2", "of-h2"),
        (None, "u3", "of-dpu"),
    ] {
        assert_eq!(look(host, uid).as_deref(), Ok(name));
        for (other, _, _) in [(Some("h1"), "", ""), (Some("h2"), "", ""), (None, "", "")] {
            if other == host {
                continue;
            }
            // What is said is what would be said if the row were not there.
            let said = look(other, uid).unwrap_err();
            let nobodys = look(other, "u9").unwrap_err().replace("u9", uid);
            assert_eq!(said, nobodys, "{other:?} asks for {name}");
        }
    }
}

#[test]
fn a_hosts_own_interface_is_found_by_role_and_host() {
    let mut node = facts("web", "u1", "eth0", "join");
    node.role = Role::Node(api::NodeFacts::default());
    node.host = Some("h1".to_owned());
    let mut own = node.clone();
    own.host = None;
    let mut pod = facts("web", "u1", "eth0", "default");
    pod.host = Some("h1".to_owned());
    let rows = [
        ("node/d1", own.encode()),
        ("pod", pod.encode()),
        ("node/h1", node.encode()),
    ];
    let look = |host: &str| find_host(rows.iter().map(|(name, ids)| (*name, ids)), host);
    assert_eq!(look("h1").unwrap().unwrap().logical_port, "node/h1");
    assert_eq!(look("d1"), None);
}

proptest! {
    /// Another pod's row is never taken, whatever rows there are and in whatever order.
    #[test]
    fn only_the_own_row_is_ever_found(
        rows in proptest::collection::vec(
            ("[ab]", "u[0-3]", "eth0|net1", "default|blue", proptest::option::of("u[0-3]")),
            0..12,
        ),
        uid in "u[0-3]",
        ifname in "eth0|net1",
        subnet in proptest::option::of("default|blue"),
    ) {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, uid, ifname, subnet, target)| {
                let mut facts = facts("web", uid, ifname, subnet);
                if let Role::Pod(pod) = &mut facts.role {
                    pod.target = target.as_ref().map(|uid| MigrationTarget { name: "x".into(), uid: uid.clone() });
                }
                (name.as_str(), facts.encode())
            })
            .collect();
        match look(&rows, &pod(&uid), &ifname, subnet.as_deref()) {
            Ok(row) => {
                let port = row.facts.pod().unwrap();
                prop_assert!(port.uid == uid || port.is_coming_to(&uid));
                prop_assert_eq!(&port.ifname, &ifname);
                prop_assert!(subnet.is_none_or(|subnet| subnet == row.facts.subnet));
            }
            Err(Missing::NoRow) => prop_assert!(rows.is_empty()),
            Err(Missing::EarlierPod { uid: other }) => prop_assert_ne!(other, uid),
            Err(_) => {}
        }
    }
}
