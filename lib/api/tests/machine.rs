//! Addresses that a virtual machine asks for, by the names of its networks.

#![allow(clippy::unwrap_used, reason = "a test")]

use api::{Selection, machine_ifname, request_network_ips, selections};

/// As KubeVirt writes it for a machine with the networks net1 and net2.
fn list() -> Vec<Selection> {
    let annotation = r#"[
        {"name": "fast", "namespace": "team", "interface": "pod6c270ef2f25", "mac": "02:00:00:00:00:01"},
        {"name": "fast", "namespace": "team", "interface": "pod67d6a0d8a3d", "ips": ["10.1.0.9"]}
    ]"#;
    let mut list = selections(annotation, "team").unwrap();
    list[1].ifname = machine_ifname("net2");
    list
}

#[test]
fn interfaces_are_named_as_kubevirt_does() {
    assert_eq!(machine_ifname("net1"), "pod6c270ef2f25");
}

#[test]
fn requests_come_to_the_network_of_that_name() {
    let mut asked = list();
    request_network_ips(&mut asked, r#"{"net1": ["10.1.0.7/24", "fd00::7"]}"#).unwrap();
    let ips = asked[0].addresses().unwrap();
    assert_eq!(
        ips.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.1.0.7", "fd00::7"]
    );
    assert!(asked[0].by_machine && !asked[1].by_machine);
    assert_eq!(asked[1], list()[1]);
    let mut nothing = list();
    request_network_ips(&mut nothing, "{}").unwrap();
    assert_eq!(nothing, list());
}

#[test]
fn what_makes_no_sense_is_one_sentence() {
    for (text, says) in [
        ("", "no JSON object of lists"),
        ("[]", "no JSON object of lists"),
        (
            r#"{"net1": {"ips": []}}"#,
            "write {\"net1\": [\"10.1.2.3\"]}",
        ),
        (r#"{"net1": [7]}"#, "write {\"net1\": [\"10.1.2.3\"]}"),
        (
            r#"{"net3": ["10.1.0.7"]}"#,
            "\"net3\" is no network with multus",
        ),
        (r#"{"default": ["10.1.0.7"]}"#, "iaas.yusur.io/ips"),
        (r#"{"net2": ["10.1.0.7"]}"#, "remove one of the two"),
    ] {
        let error = request_network_ips(&mut list(), text)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(says) && !error.contains('\n'),
            "{text}: {error}"
        );
        assert!(
            error.starts_with("annotation iaas.yusur.io/network-ips: "),
            "{error}"
        );
    }
}
