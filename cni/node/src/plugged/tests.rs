//! Desired and plan, and the loop against a real southbound database by a listener with OVN's role.

use daemon::readiness::Readiness;
use ovsdb::{Config, Tls};
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

use super::*;
use crate::attachment::{AttachmentId, Pod, PortRecord};
use crate::gateway::tests::ovn::{NODE, Ovn};
use crate::gateway::tests::sandbox::{eventually, sandboxed};
use crate::rounds::Rounds;

fn record(container: &str, uid: &str, ifname: &str, ip: &str, ordinal: u64) -> Record {
    let lsp = format!("default/web/blue/{ifname}");
    let ips: Vec<ipnet::IpNet> = ip.split(' ').map(|ip| ip.parse().unwrap()).collect();
    Record {
        id: AttachmentId {
            container: container.into(),
            ifname: ifname.into(),
        },
        network: "blue".into(),
        pod: Pod {
            namespace: "default".into(),
            name: "web".into(),
            uid: uid.into(),
        },
        netns: "/run/netns/a".into(),
        port: PortRecord::new(lsp, api::Mac([2, 0, 0, 0, 0, 1]), &ips),
        ordinal,
        end: crate::attachment::End::Veth,
    }
}

#[test]
fn all_interfaces_but_the_first_are_published_and_the_younger_sandbox_speaks_for_a_pod() {
    let mut old = record("c0", "u2", "net1", "10.1.0.9/24", 4);
    old.port.ips.clear();
    let mut gateway = record("h1/host", "", "ob0", "100.64.0.7/16", 5);
    gateway.pod.name = "h1".into();
    let entries = desired(&[
        gateway,
        record("h1/c1", "u3", "net1", "10.1.0.8/24", 6),
        record("c1", "u1", "eth0", "10.0.0.5/24", 0),
        record("c2", "u1", "net1", "10.1.0.6/24 fd00::6/64", 3),
        record("c1", "u1", "net1", "10.1.0.5/24 fd00::5/64", 1),
        record("c1", "u1", "fast0", "fd01::5/64", 2),
        old,
    ]);
    let lines: Vec<String> = entries.iter().map(|(k, v)| format!("{k} = {v}")).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    outboard = 1
    outboard/u1/fast0 = default/web/blue/fast0 02:00:00:00:00:01 fd01::5
    outboard/u1/net1 = default/web/blue/net1 02:00:00:00:00:01 10.1.0.6 fd00::6
    outboard/u3/net1 = default/web/blue/net1 02:00:00:00:00:01 10.1.0.8
    ");
}

#[test]
fn how_a_machines_interface_is_plugged_is_published() {
    let mut tap = record("c1", "u1", "pod6c270ef2f25", "10.1.0.5/24", 1);
    tap.end = serde_json::from_str(
        r#"{"tap": {"name": "tap6c270ef2f25", "bridge": "ob-6c270ef2f25", "mtu": 1400, "queues": 1, "device_info": null}}"#,
    )
    .unwrap();
    let veth = record("c2", "u2", "net1", "10.1.0.6/24", 2);
    let entries = desired(&[tap, veth]);
    let kinds: Vec<_> = entries
        .iter()
        .filter(|(key, _)| key.contains("kind"))
        .collect();
    assert_eq!(
        kinds,
        [(
            &"outboard.kind/u1/pod6c270ef2f25".to_owned(),
            &"tap".to_owned()
        )]
    );
    assert_eq!(plan(&desired(&[]), &entries).remove.len(), 3);
}

/// Keys of ours and of others, few enough to meet.
fn entries() -> impl Strategy<Value = Entries> {
    let key = prop::sample::select(vec!["outboard", "outboard/a/x", "outboard/b/x", "other"]);
    prop::collection::btree_map(key.prop_map(str::to_owned), "[0-2]", 0..4)
}

proptest! {
    #[test]
    fn after_the_plan_there_is_nothing_to_plan_and_others_keys_are_as_they_were(
        mut desired in entries(), mut there in entries(),
    ) {
        desired.remove("other");
        let other = there.get("other").cloned();
        let plan = super::plan(&desired, &there);
        there.retain(|key, _| !plan.remove.contains(key));
        there.extend(plan.set);
        prop_assert_eq!(super::plan(&desired, &there), Plan::default());
        prop_assert_eq!(there.remove("other"), other);
        prop_assert_eq!(there, desired);
    }
}

#[test]
fn the_role_lets_a_chassis_publish_in_its_own_row_and_ovn_controller_leaves_it_alone() {
    sandboxed(
        "plugged::tests::the_role_lets_a_chassis_publish_in_its_own_row_and_ovn_controller_leaves_it_alone",
        scenario(),
    );
}

async fn scenario() {
    let mut ovn = Ovn::start().await;
    ovn.join();
    ovn.sbctl(&format!("wait-until Chassis_Private {NODE}"));
    let southbound = certified(&ovn);
    let entry = |uid: &str| {
        let key = plugged_key(uid, "net1");
        ovn.sbctl(&format!(
            "--if-exists get Chassis_Private {NODE} 'external_ids:\"{key}\"'"
        ))
    };

    let store = Store::open(&ovn.home().join("journal"), "this-boot").unwrap();
    let first = record("c1", "u1", "net1", "10.1.0.5/24 fd00::5/64", 1);
    store.insert(first.clone()).await.unwrap();
    let (readiness, stop) = (Readiness::default(), CancellationToken::new());
    let rounds = Rounds::register(&mut Registry::default());
    let pace = Pace::new("plugged", &rounds, &readiness, stop.clone());
    let loop_ = tokio::spawn(run(
        store.clone(),
        NODE.to_owned(),
        southbound.clone(),
        pace,
        stop.clone(),
    ));
    let is_there = |uid: &str| entry(uid).contains("02:00:00:00:00:01 10.1.0.5 fd00::5");
    eventually("the entry", || is_there("u1")).await;

    // What others write of theirs stays, what they write of ours goes; so does the row's end.
    let key = plugged_key("u1", "net1");
    ovn.sbctl(&format!(
        "set Chassis_Private {NODE} external_ids:other=1 'external_ids:\"{key}\"=forged' \
         'external_ids:\"outboard/forged/net1\"=forged'"
    ));
    eventually("what was forged is put right", || {
        is_there("u1") && entry("forged").trim().is_empty()
    })
    .await;
    let other = format!("get Chassis_Private {NODE} external_ids:other");
    assert!(ovn.sbctl(&other).contains('1'));
    ovn.sbctl(&format!("destroy Chassis_Private {NODE}"));
    eventually("the entry in ovn-controller's new row", || is_there("u1")).await;
    // Whatever ovn-controller writes to its row, this is not of it.
    ovn.nbctl("--wait=hv sync");
    assert!(is_there("u1"));
    assert_eq!(readiness.complaints(), []);

    // A full node: 250 pods with two such interfaces each.
    for number in 0..500u16 {
        let (uid, [high, low]) = (uuid::Uuid::new_v4(), number.to_be_bytes());
        let ips = format!("10.1.{}.{low}/16 fd00:10:200::{number:x}/64", 1 + high);
        let mut record = record(&number.to_string(), &uid.to_string(), "net1", &ips, 2);
        record.port.iface_id =
            format!("production/web-frontend-7d9c5b8f6d-{number:05}/storage/net1");
        store.insert(record).await.unwrap();
    }
    let count = || {
        let row = ovn.sbctl(&format!("get Chassis_Private {NODE} external_ids"));
        (row.matches("outboard/").count(), row.len())
    };
    eventually("500 entries more", || count().0 == 501).await;
    assert!(count().1 < 110_000, "{} bytes", count().1);
    store.forget(&first.id).await.unwrap();
    eventually("the entry to go", || count().0 == 500).await;

    // The door that the role keeps shut: another chassis's row.
    let row = ovn.sbctl("create Chassis_Private name=n2");
    let plan = Plan {
        set: desired(&[first]),
        remove: BTreeSet::new(),
    };
    let forged = southbound
        .transact(transaction(&plan, row.trim().parse().unwrap()), deadline())
        .await;
    let refused = forged.unwrap_err().to_string();
    assert!(refused.contains("permission error"), "{refused}");
    stop.cancel();
    loop_.await.unwrap();
}

/// A connection to the southbound database by a listener with the role, with this chassis's certificate.
fn certified(ovn: &Ovn) -> Client {
    let file = |name: &str| ovn.home().join(name);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "authority");
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    std::fs::write(file("ca.crt"), ca.pem()).unwrap();
    let issuer = Issuer::new(params, &key);
    for (name, common_name) in [("server", "southbound"), ("client", NODE)] {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(file(&format!("{name}.key")), key.serialize_pem()).unwrap();
        std::fs::write(file(&format!("{name}.crt")), certificate.pem()).unwrap();
    }
    let home = ovn.home().display();
    ovn.sbctl(&format!(
        "set-ssl {home}/server.key {home}/server.crt {home}/ca.crt"
    ));
    ovn.sbctl("set-connection role=ovn-controller pssl:6642:127.0.0.1");
    let remote = "ssl:127.0.0.1:6642".parse().unwrap();
    Client::start(Config {
        tls: Some(Tls {
            key: file("client.key"),
            cert: file("client.crt"),
            ca: file("ca.crt"),
        }),
        ..Config::new("OVN_Southbound", vec![remote])
    })
}
