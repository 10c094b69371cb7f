//! The network annotation in both of its forms.

#![allow(clippy::unwrap_used, reason = "a test")]

use api::{Selection, selections};

fn summary(annotation: &str) -> Vec<String> {
    selections(annotation, "team")
        .unwrap()
        .iter()
        .map(
            |Selection {
                 namespace,
                 name,
                 ifname,
                 ..
             }| format!("{namespace}/{name}@{ifname}"),
        )
        .collect()
}

#[test]
fn short_form() {
    assert_eq!(
        summary("a, infra/b@blue ,c"),
        ["team/a@net1", "infra/b@blue", "team/c@net3"]
    );
    assert!(summary("").is_empty());
    assert!(summary("  ").is_empty());
}

#[test]
fn json_form() {
    let list = selections(
        r#"[{"name":"a"},{"name":"b","namespace":"infra","interface":"blue","ips":["10.1.0.7/24","fd00::7"],
            "mac":"0A:58:00:00:00:07","default-route":["10.1.0.1"],"unknown":{"x":1}}]"#,
        "team",
    )
    .unwrap();
    assert_eq!(list[0].network(), "team/a");
    assert_eq!(list[0].ifname, "net1");
    assert_eq!(list[0].addresses().unwrap(), Vec::<std::net::IpAddr>::new());
    assert_eq!(list[0].mac().unwrap(), None);
    assert_eq!(list[1].ifname, "blue");
    let addresses: Vec<String> = list[1]
        .addresses()
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(addresses, ["10.1.0.7", "fd00::7"]);
    assert_eq!(
        list[1].mac().unwrap().unwrap().to_string(),
        "0a:58:00:00:00:07"
    );
    assert!(summary("[]").is_empty());
}

#[test]
fn what_is_neither_says_so() {
    let cases = [
        ("a//b", "form [namespace/]name[@interface]"),
        ("a,,b", "form [namespace/]name[@interface]"),
        ("A", "form [namespace/]name[@interface]"),
        ("../x", "form [namespace/]name[@interface]"),
        ("a@eth0", "eth0 and lo are taken"),
        ("a@a/b", "interface \"a/b\" cannot be had"),
        ("a@net2,b", "two networks ask for the interface net2"),
        ("{\"name\":\"a\"}", "no list of elements"),
        ("[{\"namespace\":\"x\"}]", "missing field `name`"),
        (
            "[{\"name\":\"a/b\"}]",
            "no name of a NetworkAttachmentDefinition",
        ),
    ];
    for (annotation, sentence) in cases {
        let error = selections(annotation, "team").unwrap_err().to_string();
        assert!(error.contains(sentence), "{annotation}: {error}");
    }
}

#[test]
fn bad_requests_name_the_network() {
    let one = |json: &str| selections(json, "team").unwrap().remove(0);
    let error = one(r#"[{"name":"a","ips":["10.1"]}]"#)
        .addresses()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("team/a") && error.contains("10.1"),
        "{error}"
    );
    let error = one(r#"[{"name":"a","ips":["10.1.0.1","10.1.0.2"]}]"#)
        .addresses()
        .unwrap_err()
        .to_string();
    assert!(error.contains("one family"), "{error}");
    let error = one(r#"[{"name":"a","mac":"ff:ff:ff:ff:ff:ff"}]"#)
        .mac()
        .unwrap_err()
        .to_string();
    assert!(error.contains("unicast"), "{error}");
}
