use std::collections::BTreeMap;

use rstest::rstest;

use super::*;

const ARGS: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=u1;X=y";

fn request(command: Command, config: &str, env: &[(&str, &str)]) -> Request {
    let mut variables = BTreeMap::from([
        (CNI_CONTAINERID.to_owned(), "c1".to_owned()),
        (CNI_IFNAME.to_owned(), "eth0".to_owned()),
        (CNI_NETNS.to_owned(), "/run/netns/a".to_owned()),
        (CNI_ARGS.to_owned(), ARGS.to_owned()),
    ]);
    for (name, value) in env {
        variables.insert((*name).to_owned(), (*value).to_owned());
    }
    Request {
        version: cni_bin::wire::VERSION,
        command,
        env: variables,
        config: format!(r#"{{"cniVersion":"1.1.0","name":"pods","type":"outboard"{config}}}"#),
        deadline_ms: 1000,
    }
}

#[test]
fn an_add_is_read_whole() {
    let config = r#","subnet":"blue","mtu":1300,"runtimeConfig":{"mac":"0a:58:00:00:00:01","ips":["10.1.0.9/16"]}"#;
    let Call::Add(add) = Call::parse(&request(Command::Add, config, &[]), Devices::None).unwrap()
    else {
        panic!("not an ADD");
    };
    assert_eq!(
        add.id,
        AttachmentId {
            container: "c1".into(),
            ifname: "eth0".into()
        }
    );
    assert_eq!(add.pod.to_string(), "default/web");
    assert_eq!((add.pod.uid.as_str(), add.network.as_str()), ("u1", "pods"));
    assert_eq!(add.keys.subnet.as_deref(), Some("blue"));
    assert_eq!(add.keys.mtu, Some(1300));
    assert_eq!(add.keys.ips, ["10.1.0.9/16"]);
}

#[test]
fn a_device_is_taken_from_either_place_where_there_is_a_card() {
    let device = |config: &str| {
        let request = request(Command::Add, config, &[]);
        match Call::parse(&request, Devices::Functions).unwrap() {
            Call::Add(add) => add.keys.device,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(device(""), None);
    assert_eq!(device(r#","deviceID":"""#), None);
    let config = r#","deviceID":"0000:01:00.1""#;
    assert_eq!(device(config).as_deref(), Some("0000:01:00.1"));
    let both = r#","deviceID":"0000:01:00.1","runtimeConfig":{"deviceID":"0000:01:00.2"}"#;
    assert_eq!(device(both).as_deref(), Some("0000:01:00.2"));
}

#[test]
fn a_del_needs_neither_netns_nor_pod() {
    let request = request(Command::Del, "", &[(CNI_NETNS, ""), (CNI_ARGS, "")]);
    assert!(matches!(
        Call::parse(&request, Devices::None).unwrap(),
        Call::Del { .. }
    ));
}

#[test]
fn a_gc_tells_no_list_from_an_empty_one() {
    let valid = |config: &str| match Call::parse(&request(Command::Gc, config, &[]), Devices::None)
        .unwrap()
    {
        Call::Gc { valid, .. } => valid,
        other => panic!("{other:?}"),
    };
    assert_eq!(valid(""), None);
    assert_eq!(
        valid(r#","cni.dev/valid-attachments":[]"#),
        Some(Vec::new())
    );
    let one =
        valid(r#","cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]"#).unwrap();
    assert_eq!(one[0].to_string(), "eth0 of sandbox c1");
}

#[rstest]
#[case("", &[(CNI_CONTAINERID, "")], 4, "CNI_CONTAINERID is not set")]
#[case("", &[(CNI_CONTAINERID, "-x")], 4, "CNI_CONTAINERID is \"-x\"")]
#[case("", &[(CNI_IFNAME, "")], 4, "CNI_IFNAME is not set")]
#[case("", &[(CNI_IFNAME, "a/b")], 4, "CNI_IFNAME is \"a/b\"")]
#[case("", &[(CNI_IFNAME, "sixteen-letters-")], 4, "CNI_IFNAME")]
#[case("", &[(CNI_NETNS, "")], 4, "CNI_NETNS is not set")]
#[case("", &[(CNI_NETNS, "a")], 4, "not an absolute path")]
#[case("", &[(CNI_ARGS, "")], 4, "no K8S_POD_NAMESPACE")]
#[case("", &[(CNI_ARGS, "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b")], 4, "no K8S_POD_UID")]
#[case("", &[(CNI_ARGS, "K8S_POD_NAMESPACE=a;FOO=b")], 4, "unknown key \"FOO\"")]
#[case("", &[(CNI_ARGS, "FOO")], 4, "\"FOO\", which is not")]
#[case(r#","subnet":3"#, &[], 7, "\"subnet\" is 3")]
#[case(r#","mtu":"big""#, &[], 7, "\"mtu\" is \"big\"")]
#[case(r#","mtu":100"#, &[], 7, "\"mtu\" is 100")]
#[case(r#","ipam":{"type":"host-local"}"#, &[], 2, "\"host-local\"")]
#[case(r#","runtimeConfig":{"deviceID":"0000:01:00.1"}"#, &[], 2, "0000:01:00.1")]
#[case(r#","runtimeConfig":{"ips":"10.0.0.1"}"#, &[], 7, "\"runtimeConfig\"")]
fn bad_input_has_its_code_and_names_the_cause(
    #[case] config: &str,
    #[case] env: &[(&str, &str)],
    #[case] code: u32,
    #[case] cause: &str,
) {
    let error = Call::parse(&request(Command::Add, config, env), Devices::None).unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.cause.contains(cause), "{error}");
    assert!(!error.remedy.is_empty(), "{error}");
}
