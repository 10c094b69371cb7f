//! What cloud-init is told, and what it is not.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::{Value, json};
use shim::cloud_init::{Data, Error, asked, tell};
use shim::resolver::{Nic, Plug};
use shim::vmi::Vmi;

const ASKED: &str = r#"{"net1": {"addresses": ["10.9.0.5/24", "fd00::5/64"], "gateways": ["10.9.0.1"], "nameservers": ["10.96.0.10"]}}"#;

fn vmi(annotation: &str) -> Vmi {
    let vmi =
        json!({"metadata": {"annotations": {"iaas.yusur.io/cloud-init-network": annotation}}});
    Vmi::from_json(vmi.to_string().as_bytes()).unwrap()
}

fn nics() -> [Nic; 1] {
    [Nic {
        name: "net1".into(),
        ifname: "pod1".into(),
        plug: Plug::Tap,
        mac: "02:00:00:00:00:01".into(),
        mtu: Some(1442),
        queues: None,
        said_by: "a test",
    }]
}

/// As Go writes it.
fn sent(networks: &str) -> Data {
    let data = json!({
        "DataSource": "noCloud", "NoCloudMetaData": {"instance-id": "db.shop"}, "ConfigDriveMetaData": null,
        "UserData": "#cloud-config\npassword: secret", "NetworkData": networks, "DevicesData": null, "VolumeName": "ci",
    });
    let no_cloud = json!({"userData": "#cloud-config\npassword: secret", "networkData": networks});
    Data {
        data: data.to_string().into_bytes(),
        no_cloud: no_cloud.to_string().into_bytes(),
    }
}

#[test]
fn addresses_that_are_asked_for_are_told_in_both_forms() {
    let told = tell(sent(""), &asked(&vmi(ASKED)).unwrap(), &nics()).unwrap();
    let data: Value = serde_json::from_slice(&told.data).unwrap();
    let no_cloud: Value = serde_json::from_slice(&told.no_cloud).unwrap();
    assert_eq!(data["NetworkData"], no_cloud["networkData"]);
    let networks: Value = serde_json::from_str(data["NetworkData"].as_str().unwrap()).unwrap();
    let ethernet = json!({
        "match": {"macaddress": "02:00:00:00:00:01"},
        "addresses": ["10.9.0.5/24", "fd00::5/64"],
        "routes": [{"to": "0.0.0.0/0", "via": "10.9.0.1"}],
        "nameservers": {"addresses": ["10.96.0.10"]},
        "mtu": 1442,
    });
    assert_eq!(
        networks,
        json!({"version": 2, "ethernets": {"net1": ethernet}})
    );
    for (key, value) in [("VolumeName", "ci"), ("DataSource", "noCloud")] {
        assert_eq!(data[key], value);
    }
    assert_eq!(data["UserData"], no_cloud["userData"]);
    // A second time: the same.
    let again = tell(told.clone(), &asked(&vmi(ASKED)).unwrap(), &nics()).unwrap();
    assert_eq!(again, told);
}

#[test]
fn without_the_annotation_nothing_is_read_or_changed() {
    let nothing = asked(&Vmi::default()).unwrap();
    let odd = Data {
        data: b"null".to_vec(),
        no_cloud: b"not JSON".to_vec(),
    };
    assert_eq!(tell(odd.clone(), &nothing, &nics()), Ok(odd));
}

#[test]
fn what_the_vm_says_itself_is_not_overwritten() {
    let asked = asked(&vmi(ASKED)).unwrap();
    assert_eq!(tell(sent("version: 2"), &asked, &nics()), Err(Error::Both));
    let mut drive: Value = serde_json::from_slice(&sent("").data).unwrap();
    drive["ConfigDriveMetaData"] = json!({"instance_id": "x"});
    let drive = Data {
        data: drive.to_string().into_bytes(),
        no_cloud: sent("").no_cloud,
    };
    assert_eq!(tell(drive, &asked, &nics()), Err(Error::ConfigDrive));
    let broken = Data {
        data: b"null".to_vec(),
        no_cloud: b"{}".to_vec(),
    };
    assert!(matches!(tell(broken, &asked, &nics()), Err(Error::Data(_))));
}

#[test]
fn a_bad_annotation_is_refused_with_an_example() {
    for bad in [
        "",
        "{",
        "[]",
        r#"{"net1": {}}"#,
        r#"{"net1": {"addresses": []}}"#,
        r#"{"net1": {"addresses": ["10.9.0.5/33"]}}"#,
        r#"{"net1": {"addresses": ["10.9.0.5/24"], "gatway": "10.9.0.1"}}"#,
        r#"{"net1": {"addresses": ["10.9.0.5/24"], "gateways": ["10.9.0.1", "10.9.0.2"]}}"#,
    ] {
        let sentence = asked(&vmi(bad)).unwrap_err().to_string();
        assert!(sentence.contains("10.0.0.5/24"), "{bad}: {sentence}");
    }
    let other = asked(&vmi(&ASKED.replace("net1", "net7"))).unwrap();
    let sentence = tell(sent(""), &other, &nics()).unwrap_err().to_string();
    assert!(
        sentence.contains("net7 is no interface of this binding"),
        "{sentence}"
    );
}
