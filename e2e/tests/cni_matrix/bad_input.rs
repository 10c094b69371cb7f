//! Everything a runtime or an operator can get wrong: the code, the object, the cause, the remedy, and nothing done.

use e2e::{CniCall, Node};
use rstest::rstest;
use serde_json::json;

use crate::world::{Pod, config, world};

/// One variable that is wrong: verb, name, value, code, sentence, remedy.
type BadVariable<'a> = (&'a str, &'a str, &'a str, u64, &'a [&'a str], &'a str);

const VARIABLES: &[BadVariable<'_>] = &[
    (
        "ADD",
        "CNI_COMMAND",
        "",
        4,
        &["CNI_COMMAND is not set"],
        "container runtime sets it",
    ),
    (
        "ADD",
        "CNI_COMMAND",
        "JUMP",
        4,
        &["CNI_COMMAND is \"JUMP\""],
        "Set ADD, DEL, CHECK, GC, STATUS or VERSION",
    ),
    (
        "ADD",
        "CNI_CONTAINERID",
        "",
        4,
        &["ADD came without CNI_CONTAINERID"],
        "runtime must set",
    ),
    (
        "DEL",
        "CNI_CONTAINERID",
        "",
        4,
        &["DEL came without CNI_CONTAINERID"],
        "runtime must set",
    ),
    (
        "ADD",
        "CNI_CONTAINERID",
        "-x",
        4,
        &["CNI_CONTAINERID is \"-x\""],
        "letters, digits",
    ),
    (
        "DEL",
        "CNI_CONTAINERID",
        "../x",
        4,
        &["CNI_CONTAINERID is \"../x\""],
        "letters, digits",
    ),
    (
        "ADD",
        "CNI_IFNAME",
        "",
        4,
        &["ADD came without CNI_IFNAME"],
        "runtime must set",
    ),
    (
        "DEL",
        "CNI_IFNAME",
        "",
        4,
        &["DEL came without CNI_IFNAME"],
        "runtime must set",
    ),
    (
        "ADD",
        "CNI_IFNAME",
        "a/b",
        4,
        &["CNI_IFNAME is \"a/b\""],
        "1 to 15 bytes",
    ),
    (
        "ADD",
        "CNI_IFNAME",
        "sixteen-letters-",
        4,
        &["CNI_IFNAME is \"sixteen-letters-\""],
        "1 to 15 bytes",
    ),
    (
        "ADD",
        "CNI_IFNAME",
        "..",
        4,
        &["CNI_IFNAME is \"..\""],
        "not be \".\" or \"..\"",
    ),
    (
        "ADD",
        "CNI_NETNS",
        "",
        4,
        &["ADD came without CNI_NETNS"],
        "runtime must set",
    ),
    (
        "ADD",
        "CNI_NETNS",
        "netns/a",
        4,
        &["CNI_NETNS is netns/a", "not an absolute path"],
        "network namespace",
    ),
    (
        "ADD",
        "CNI_NETNS",
        "/run/netns/none",
        8,
        &["/run/netns/none does not exist"],
        "HostToContainer",
    ),
    (
        "ADD",
        "CNI_NETNS",
        "/etc/hostname",
        8,
        &["/etc/hostname is not a network namespace"],
        "CNI_NETNS",
    ),
    (
        "ADD",
        "CNI_NETNS",
        "/run",
        8,
        &["/run is not a network namespace"],
        "CNI_NETNS",
    ),
    (
        "ADD",
        "CNI_NETNS",
        "/proc/self/ns/mnt",
        8,
        &["/proc/self/ns/mnt is not a network namespace"],
        "CNI_NETNS",
    ),
    (
        "ADD",
        "CNI_NETNS",
        "/proc/self/ns/net",
        8,
        &["the host's own network namespace"],
        "no CNI call",
    ),
    (
        "ADD",
        "CNI_ARGS",
        "",
        4,
        &["CNI_ARGS has no K8S_POD_NAMESPACE"],
        "K8S_POD_UID",
    ),
    (
        "ADD",
        "CNI_ARGS",
        "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b",
        4,
        &["CNI_ARGS has no K8S_POD_UID"],
        "K8S_POD_UID",
    ),
    (
        "ADD",
        "CNI_ARGS",
        "K8S_POD_NAMESPACE",
        4,
        &["\"K8S_POD_NAMESPACE\""],
        "",
    ),
    (
        "ADD",
        "CNI_ARGS",
        "FOO=b;K8S_POD_NAMESPACE=a",
        4,
        &["unknown key \"FOO\""],
        "IgnoreUnknown",
    ),
];

/// Configurations that are wrong in every version; `V` stands for it. Verb, text, code, sentence, remedy.
type BadConfig<'a> = (&'a str, &'a str, u64, &'a [&'a str], &'a str);

const CONFIGS: &[BadConfig<'_>] = &[
    ("ADD", "", 6, &["standard input is not JSON"], "conflist"),
    (
        "ADD",
        "{\"cniVersion\":\"V\",",
        6,
        &["standard input is not JSON"],
        "conflist",
    ),
    (
        "DEL",
        "not json",
        6,
        &["standard input is not JSON"],
        "conflist",
    ),
    ("ADD", "null", 7, &["standard input is invalid"], "conflist"),
    ("ADD", "[1]", 7, &["standard input is invalid"], "conflist"),
    (
        "ADD",
        "{\"cniVersion\":1,\"name\":\"n\"}",
        7,
        &["standard input is invalid", "string"],
        "conflist",
    ),
    (
        "ADD",
        "{\"name\":\"n\"}",
        1,
        &["declares no cniVersion", "0.1.0"],
        "0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0",
    ),
    (
        "ADD",
        "{\"cniVersion\":\"0.2.0\",\"name\":\"n\"}",
        1,
        &["cniVersion \"0.2.0\""],
        "Use one of",
    ),
    (
        "DEL",
        "{\"cniVersion\":\"9.9.9\",\"name\":\"n\"}",
        1,
        &["cniVersion \"9.9.9\""],
        "Use one of",
    ),
    (
        "ADD",
        "{\"cniVersion\":\"V\",\"type\":\"outboard\"}",
        7,
        &["has no \"name\""],
        "letters, digits",
    ),
    (
        "ADD",
        "{\"cniVersion\":\"V\",\"name\":\"-n\"}",
        7,
        &["the name \"-n\""],
        "starts with a letter",
    ),
    (
        "ADD",
        "{\"cniVersion\":\"V\",\"name\":7}",
        7,
        &["standard input is invalid", "integer `7`"],
        "conflist",
    ),
    (
        "ADD",
        "{\"cniVersion\":\"V\",\"name\":\"n\",\"socket\":\"run/s\"}",
        7,
        &["network n", "\"socket\" is \"run/s\""],
        "--socket",
    ),
    (
        "ADD",
        "{\"cniVersion\":\"V\",\"name\":\"n\",\"timeoutSeconds\":0}",
        7,
        &["network n", "\"timeoutSeconds\" is 0, outside 1 to 600"],
        "leave the key out",
    ),
    (
        "ADD",
        "{\"cniVersion\":\"V\",\"name\":\"n\",\"timeoutSeconds\":601}",
        7,
        &["\"timeoutSeconds\" is 601, outside 1 to 600"],
        "leave the key out",
    ),
    (
        "ADD",
        "{\"cniVersion\":\"V\",\"name\":\"n\",\"timeoutSeconds\":\"1\"}",
        7,
        &["standard input is invalid"],
        "conflist",
    ),
    (
        "ADD",
        "{\"cniVersion\":\"V\",\"name\":\"n\",\"type\":\"outboard\",\"subnet\":3}",
        7,
        &["Network n", "\"subnet\" is 3"],
        "name of a Subnet",
    ),
    (
        "ADD",
        "{\"cniVersion\":\"V\",\"name\":\"n\",\"type\":\"outboard\",\"subnet\":\"\"}",
        7,
        &["\"subnet\" is \"\""],
        "name of a Subnet",
    ),
    (
        "ADD",
        "{\"cniVersion\":\"V\",\"name\":\"n\",\"type\":\"outboard\",\"mtu\":100}",
        7,
        &["Network n", "\"mtu\" is 100"],
        "576 to 65535",
    ),
    (
        "ADD",
        "{\"cniVersion\":\"V\",\"name\":\"n\",\"type\":\"outboard\",\"mtu\":\"1400\"}",
        7,
        &["\"mtu\" is \"1400\""],
        "576 to 65535",
    ),
    (
        "ADD",
        "{\"cniVersion\":\"V\",\"name\":\"n\",\"type\":\"outboard\",\"ipam\":{\"type\":\"host-local\"}}",
        2,
        &["Network n", "\"ipam\" is \"host-local\""],
        "cni-controller allocates",
    ),
    (
        "ADD",
        "{\"cniVersion\":\"V\",\"name\":\"n\",\"type\":\"outboard\",\"runtimeConfig\":{\"ips\":\"10.0.0.1\"}}",
        7,
        &["Network n", "\"runtimeConfig\""],
        "list of texts",
    ),
    (
        "ADD",
        "{\"cniVersion\":\"V\",\"name\":\"n\",\"type\":\"outboard\",\"prevResult\":{\"ips\":3}}",
        7,
        &["network n", "configuration is invalid"],
        "conflist",
    ),
];

#[rstest]
fn bad_environment(#[values("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")] version: &str) {
    let lab = world();
    let node = lab.node("n2");
    let pod = Pod::new(&lab, node, "bad");
    for (verb, name, value, code, sentence, remedy) in VARIABLES {
        let call = pod.call(verb, version, &json!({})).env(name, value);
        let error = call.run(node).unwrap().refused(*code, sentence, remedy);
        // Before the verb is known the configuration is not read.
        if *name != "CNI_COMMAND" {
            assert_eq!(error["cniVersion"], version, "{verb} {name}={value}");
        }
    }
    untouched(&pod);
}

#[rstest]
fn bad_configuration(#[values("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")] version: &str) {
    let lab = world();
    let node = lab.node("n2");
    let pod = Pod::new(&lab, node, "bad");
    for (verb, text, code, sentence, remedy) in CONFIGS {
        let text = text.replace("\"V\"", &format!("{version:?}"));
        let call = CniCall::new(verb, text.clone()).of(&pod.sandbox, &pod.row);
        let error = call.run(node).unwrap().refused(*code, sentence, remedy);
        let whole = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        if whole && text.contains(version) {
            assert_eq!(error["cniVersion"], version, "{text}");
        }
    }
    untouched(&pod);
}

#[test]
fn a_configuration_that_is_no_text_or_endless() {
    let lab = world();
    let node = lab.node("n2");
    let pod = Pod::new(&lab, node, "bad");
    let run = |bytes: Vec<u8>| {
        CniCall::new("ADD", bytes)
            .of(&pod.sandbox, &pod.row)
            .run(node)
            .unwrap()
    };
    run(vec![0xff, 0xfe]).refused(6, &["standard input is not UTF-8"], "conflist");
    run(vec![b' '; 5 << 20]).refused(7, &["standard input has more than", "bytes"], "conflist");
    untouched(&pod);
}

#[test]
fn gc_and_check_need_theirs() {
    let lab = world();
    let node = lab.node("n2");
    let text = config("1.1.0", &json!({})).to_string();
    let gc = CniCall::new("GC", text)
        .env("CNI_PATH", "")
        .run(node)
        .unwrap();
    gc.refused(4, &["GC came without CNI_PATH"], "runtime must set");
    let pod = Pod::new(&lab, node, "bad");
    for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
        let check = pod
            .call("CHECK", "1.1.0", &json!({}))
            .env(name, "")
            .run(node)
            .unwrap();
        check.refused(
            4,
            &[&format!("CHECK came without {name}")],
            "runtime must set",
        );
    }
}

#[test]
fn a_daemon_that_is_not_there() {
    let lab = world();
    let node = lab.node("n2");
    let pod = Pod::new(&lab, node, "bad");
    let nowhere = json!({"socket": "/run/outboard/nowhere.sock"});
    for (verb, code) in [("ADD", 11), ("DEL", 11), ("STATUS", 50)] {
        let sentence = [
            "cni-node does not answer at /run/outboard/nowhere.sock",
            "does not exist",
        ];
        let answer = pod.run(verb, "1.1.0", &nowhere);
        answer.refused(code, &sentence, "Check that cni-node runs on this node");
    }
    untouched(&pod);
}

/// Nobody but root may ask, and nothing was made.
#[test]
fn only_root_reaches_the_socket() {
    let lab = world();
    let node: &Node = lab.node("n1");
    let mode = node
        .exec(&[
            "stat",
            "-c",
            "%a %n",
            "/run/outboard",
            "/run/outboard/cni.sock",
        ])
        .unwrap();
    assert_eq!(mode, "700 /run/outboard\n600 /run/outboard/cni.sock");
}

#[track_caller]
fn untouched(pod: &Pod<'_>) {
    pod.left_nothing();
    let links = pod.sandbox.ip(&["link"]).unwrap();
    assert_eq!(links.as_array().unwrap().len(), 1, "{links}");
}
