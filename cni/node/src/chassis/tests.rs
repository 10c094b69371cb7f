//! Desired and plan, and the loop against a real Open vSwitch database. With a real ovn-controller it is tested by the gateway.

use std::collections::BTreeMap;

use ovsdb::Uuid;
use proptest::prelude::*;

use daemon::readiness::Readiness;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::settings::{Args, Observed, Place, SslPlan, TlsFiles, desired, keep_system_id, plan};
use crate::chassis::Databases;
use crate::gateway::tests::sandbox::{eventually, sh};
use crate::rounds::{Pace, Rounds};
use crate::testing::OvsdbServer;

fn place(southbound: &str) -> Place {
    Place {
        node: "n1.example".to_owned(),
        chassis: "n1.example".to_owned(),
        southbound: southbound.to_owned(),
        identity: "/var/lib/outboard/identity".into(),
    }
}

fn args() -> Args {
    Args {
        encap_ip: "198.18.0.1".parse().unwrap(),
        bridge_mappings: Some("physnet:br-ex".to_owned()),
        datapath_type: "netdev".to_owned(),
        monitor_all: true,
        remote_probe_interval: 30_000,
        openflow_probe_interval: 60,
        hw_offload: None,
        tc_policy: None,
        system_id_conf: "/etc/openvswitch/system-id.conf".into(),
    }
}

#[test]
fn the_flags_become_external_ids_and_an_ssl_row() {
    let desired = desired(&place("ssl:198.18.0.9:6642,ssl:198.18.0.8:6642"), &args());
    let lines: Vec<String> = desired
        .external_ids
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    hostname=n1.example
    ovn-bridge=br-int
    ovn-bridge-datapath-type=netdev
    ovn-bridge-mappings=physnet:br-ex
    ovn-encap-ip=198.18.0.1
    ovn-encap-type=geneve
    ovn-monitor-all=true
    ovn-openflow-probe-interval=60
    ovn-remote=ssl:198.18.0.9:6642,ssl:198.18.0.8:6642
    ovn-remote-probe-interval=30000
    system-id=n1.example
    ");
    assert_eq!(
        desired.tls.unwrap().certificate,
        "/var/lib/outboard/identity/tls.crt"
    );
}

#[test]
fn without_tls_the_ssl_row_is_not_ours() {
    let desired = desired(&place("unix:/run/ovn/ovnsb_db.sock"), &args());
    let files = |name: &str| TlsFiles {
        private_key: name.to_owned(),
        certificate: name.to_owned(),
        ca_cert: name.to_owned(),
    };
    let observed = Observed {
        root: Uuid::nil(),
        external_ids: BTreeMap::new(),
        other_config: BTreeMap::new(),
        ssl: Some((Uuid::nil(), files("/etc/other"))),
    };
    assert_eq!(plan(&desired, &observed).ssl, SslPlan::Keep);
}

#[test]
fn the_system_id_file_is_written_once_and_never_where_open_vswitch_is_not() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("system-id.conf");
    assert!(keep_system_id(&path, "n1").unwrap());
    assert!(!keep_system_id(&path, "n1").unwrap());
    std::fs::write(&path, "6e1a-random\n").unwrap();
    assert!(keep_system_id(&path, "n1").unwrap());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "n1\n");
    assert!(!keep_system_id(&home.path().join("missing/system-id.conf"), "n1").unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_change_is_put_back() {
    let home = tempfile::tempdir().unwrap();
    let server = OvsdbServer::start(home.path(), "/usr/share/openvswitch/vswitch.ovsschema");
    let socket = server.socket();
    eventually("the server's socket", || socket.exists()).await;
    let vsctl = |command: &str| {
        sh(&format!(
            "ovs-vsctl --no-wait --db=unix:{} {command}",
            socket.display()
        ))
    };
    vsctl(
        "init -- set Open_vSwitch . external_ids:rundir=/run/openvswitch other_config:tc-policy=none \
         other_config:vlan-limit=1",
    );

    let nowhere = ovsdb::Remote::Unix(home.path().join("nowhere"));
    let start = |name: &str, remote| ovsdb::Client::start(ovsdb::Config::new(name, vec![remote]));
    let databases = Databases {
        vswitch: start("Open_vSwitch", server.remote()),
        southbound: start("OVN_Southbound", nowhere),
    };
    let args = Args {
        system_id_conf: home.path().join("system-id.conf"),
        hw_offload: Some(true),
        tc_policy: Some("skip_sw".to_owned()),
        ..args()
    };
    let (readiness, stop) = (Readiness::default(), CancellationToken::new());
    let rounds = Rounds::register(&mut Registry::default());
    let pace = Pace::new("chassis", &rounds, &readiness, stop.clone());
    let place = place("ssl:198.18.0.9:6642");
    let running = tokio::spawn(super::run(
        place,
        args,
        databases,
        watch::Sender::new(None),
        pace,
    ));

    let is_set = || {
        let ids = vsctl("get Open_vSwitch . external_ids");
        let ssl = vsctl("get-ssl");
        let config = vsctl("get Open_vSwitch . other_config");
        config.contains("hw-offload=\"true\"")
            && config.contains("tc-policy=skip_sw")
            && config.contains("vlan-limit")
            && ids.contains("system-id=n1.example")
            && ids.contains("rundir=")
            && ssl.contains("/var/lib/outboard/identity/tls.key")
            && ssl.contains("/var/lib/outboard/identity/ca.crt")
    };
    eventually("the settings", is_set).await;
    vsctl("set Open_vSwitch . external_ids:system-id=other -- set-ssl /a /b /c");
    eventually("the settings again", is_set).await;
    vsctl(
        "del-ssl -- remove Open_vSwitch . external_ids system-id -- clear Open_vSwitch . other_config -- set Open_vSwitch . other_config:vlan-limit=2",
    );
    eventually("the settings once more", is_set).await;

    let said = format!("{:?}", readiness.complaints());
    for part in [
        "ssl:198.18.0.9:6642 cannot be used",
        "br-int does not exist",
        "--encap-ip",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    stop.cancel();
    running.await.unwrap();
}

proptest! {
    #[test]
    fn a_plan_made_after_an_apply_is_empty(
        held in proptest::collection::btree_map("system-id|hostname|ovn-remote|rundir|ovn-encap-ip", "[ab]", 0..5),
        ssl in proptest::option::of("[ab]"),
        config in proptest::collection::btree_map("hw-offload|tc-policy|other", "[ab]|true", 0..3),
        offload in proptest::option::of(any::<bool>()),
    ) {
        let args = Args { hw_offload: offload, tc_policy: Some("none".to_owned()), ..args() };
        let desired = desired(&place("ssl:198.18.0.9:6642"), &args);
        let files = |name: String| TlsFiles { private_key: name.clone(), certificate: name.clone(), ca_cert: name };
        let foreign = held.get("rundir").cloned();
        let mut observed = Observed {
            root: Uuid::nil(),
            external_ids: held,
            other_config: config,
            ssl: ssl.map(|name| (Uuid::nil(), files(name))),
        };
        let made = plan(&desired, &observed);
        observed.external_ids.extend(made.set);
        observed.other_config.extend(made.config);
        if offload.is_none() {
            prop_assert!(!desired.other_config.contains_key("hw-offload"));
        }
        match made.ssl {
            SslPlan::Keep => {}
            SslPlan::Insert(files) => observed.ssl = Some((Uuid::nil(), files)),
            SslPlan::Update(row, files) => observed.ssl = Some((row, files)),
        }
        prop_assert!(plan(&desired, &observed).is_empty());
        prop_assert_eq!(observed.external_ids.get("rundir").cloned(), foreign);
    }
}
