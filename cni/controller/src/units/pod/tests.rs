//! What a pod asks for, and what it gets.

use super::*;
use crate::index::{Dirty, Indexed, Settings};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

fn index(objects: &[(&str, serde_json::Value)]) -> Index {
    let mut index = Index::new(Settings::default());
    for (name, spec) in objects {
        let object = json!({"metadata": {"name": name}, "spec": spec});
        let subnet: api::Subnet = serde_json::from_value(object).unwrap();
        subnet.put(&mut index, &mut Dirty::default());
    }
    index
}

fn nad(index: &mut Index, ns: &str, name: &str, config: &str) {
    let object = json!({"metadata": {"name": name, "namespace": ns}, "spec": {"config": config}});
    let nad: api::NetworkAttachmentDefinition = serde_json::from_value(object).unwrap();
    nad.put(index, &mut Dirty::default());
}

fn pod(annotations: &serde_json::Value) -> PodEntry {
    let object = json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "annotations": annotations},
        "spec": {"nodeName": "n1", "containers": []},
    });
    let pod: Pod = serde_json::from_value(object).unwrap();
    PodEntry::from_pod(&pod, false).unwrap()
}

#[test]
fn a_plain_pod_has_eth0_in_the_default_subnet() {
    let index = index(&[("default", json!({"cidrs": ["10.0.0.0/24"]}))]);
    let all = interfaces(&index, "ns", &pod(&json!({})));
    assert_eq!(all.refused, []);
    assert_eq!(
        (&*all.wanted[0].ifname, &*all.wanted[0].subnet),
        ("eth0", "default")
    );
}

#[test]
fn a_primary_subnet_takes_its_namespaces() {
    let own = json!({"cidrs": ["10.1.0.0/24"], "namespaces": ["ns"], "primary": true});
    let index = index(&[("default", json!({"cidrs": ["10.0.0.0/24"]})), ("own", own)]);
    assert_eq!(
        interfaces(&index, "ns", &pod(&json!({}))).wanted[0].subnet,
        "own"
    );
    assert_eq!(
        interfaces(&index, "other", &pod(&json!({}))).wanted[0].subnet,
        "default"
    );
}

#[test]
fn secondary_networks_count_all_positions_and_are_admitted_or_not() {
    let mut index = index(&[
        ("default", json!({"cidrs": ["10.0.0.0/24"]})),
        (
            "storage",
            json!({"cidrs": ["10.1.0.0/24"], "namespaces": ["ns"]}),
        ),
        ("closed", json!({"cidrs": ["10.2.0.0/24"]})),
    ]);
    nad(&mut index, "ns", "bridge", r#"{"type":"bridge"}"#);
    nad(
        &mut index,
        "ns",
        "ours",
        r#"{"type":"outboard","subnet":"storage"}"#,
    );
    nad(
        &mut index,
        "ns",
        "closed",
        r#"{"type":"outboard","subnet":"closed"}"#,
    );
    nad(&mut index, "ns", "broken", r#"{"type":"outboard"}"#);
    let annotation = "bridge,ours,closed,broken,absent,ours@fast";
    let key = "k8s.v1.cni.cncf.io/networks";
    let all = interfaces(&index, "ns", &pod(&json!({ key: annotation })));
    let wanted: Vec<_> = all
        .wanted
        .iter()
        .map(|i| (&*i.ifname, &*i.subnet))
        .collect();
    assert_eq!(
        wanted,
        [
            ("eth0", "default"),
            ("net2", "storage"),
            ("fast", "storage")
        ]
    );
    let refused: Vec<_> = all
        .refused
        .iter()
        .map(|(name, p)| (name.as_deref().unwrap(), p.reason))
        .collect();
    let expected = [
        ("net3", "NotAdmitted"),
        ("net4", "InvalidNetwork"),
        ("net5", "NoSuchNetwork"),
    ];
    assert_eq!(refused, expected);
}

#[test]
fn requests_are_checked() {
    let index = index(&[("default", json!({"cidrs": ["10.0.0.0/24"]}))]);
    let ask = |key: &str, value: &str| {
        let all = interfaces(&index, "ns", &pod(&json!({ key: value })));
        all.refused
            .first()
            .map(|(_, problem)| problem.sentence.clone())
    };
    assert_eq!(ask("iaas.yusur.io/ips", "10.0.0.9"), None);
    assert!(
        ask("iaas.yusur.io/ips", "10.0.0.9,x")
            .unwrap()
            .contains("no IP address")
    );
    assert!(
        ask("iaas.yusur.io/ips", "10.0.0.9,10.0.0.8")
            .unwrap()
            .contains("one family")
    );
    assert!(
        ask("iaas.yusur.io/mac", "01:00:00:00:00:01")
            .unwrap()
            .contains("unicast")
    );
}

#[test]
fn without_its_subnet_a_port_is_kept_as_it_is() {
    let empty = index(&[]);
    let port = Port {
        ifname: "eth0".into(),
        lsp: "ns/p/default".into(),
        uid: "u".into(),
        subnet: "default".into(),
        assigned: crate::ipam::Assigned {
            mac: Mac([2, 0, 0, 0, 0, 1]),
            ips: vec![],
        },
    };
    let row = row(&empty, ("ns", "p"), &pod(&json!({})), &port, None);
    assert!(row.columns.is_empty() && row.parents.is_empty());
}
