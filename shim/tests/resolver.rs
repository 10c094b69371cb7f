//! The resolver's table: what the files may say, and the sentence for everything that is of no use.
#![allow(clippy::unwrap_used, reason = "a test")]

use rstest::rstest;
use serde_json::{Value, json};
use shim::resolver::links::{self, Link, Links};
use shim::resolver::{Error, Mode, Nic, Plug, Sources, annotations, dra, network_info, resolve};
use shim::vmi::{Vmi, tap};

const HOOKS: &str = "/var/run/kubevirt-hooks";
const MAC: &str = "02:00:00:00:00:01";
const COMPUTED: &str = "/var/run/kubevirt-hooks/outboard/net/pod6c270ef2f25.sock";

/// A VM with one interface, changed by `change`.
fn vm(change: impl FnOnce(&mut Value)) -> Vmi {
    let mut vmi = json!({
        "metadata": {"name": "db", "namespace": "shop", "annotations": null},
        "spec": {
            "domain": {"devices": {"interfaces": [
                {"name": "net1", "macAddress": MAC, "binding": {"name": "vhostuser"}},
            ]}},
            "networks": [{"name": "net1", "multus": {"networkName": "shop/fast"}}],
        },
    });
    change(&mut vmi);
    Vmi::from_json(vmi.to_string().as_bytes()).unwrap()
}

fn sources() -> Sources {
    Sources {
        hooks: HOOKS.into(),
        ..Sources::default()
    }
}

#[allow(clippy::needless_pass_by_value, reason = "cases read better so")]
fn with_info(text: impl ToString) -> Sources {
    Sources {
        network_info: Some(text.to_string()),
        ..sources()
    }
}

fn entry(device: &Value) -> Value {
    json!({"interfaces": [{"network": "net1", "deviceInfo": device, "mac": MAC, "mtu": 1442}]})
}

fn socket(path: &str, mode: &str) -> Value {
    json!({"type": "vhost-user", "version": "1.1.0", "vhost-user": {"mode": mode, "path": path}})
}

fn one(vmi: &Vmi, sources: &Sources) -> Nic {
    let mut nics = resolve(vmi, "vhostuser", sources).unwrap();
    assert_eq!(nics.len(), 1);
    nics.remove(0)
}

fn refused(vmi: &Vmi, sources: &Sources) -> Error {
    resolve(vmi, "vhostuser", sources).unwrap_err()
}

#[test]
fn names_are_those_of_kubevirt() {
    // sha256("net1") begins with 6c270ef2f25.
    let nic = one(&vm(|_| {}), &sources());
    assert_eq!(nic.ifname, "pod6c270ef2f25");
    assert_eq!(tap("net1"), "tap6c270ef2f25");
}

#[test]
fn network_info_says_all() {
    let nic = one(
        &vm(|_| {}),
        &with_info(entry(&socket("/a/b.sock", "client"))),
    );
    let path = "/a/b.sock".into();
    let mode = Mode::Client;
    assert_eq!(nic.plug, Plug::VhostUser { path, mode });
    assert_eq!((nic.mac.as_str(), nic.mtu), (MAC, Some(1442)));
    assert_eq!(nic.said_by, network_info::FILE);
}

#[test]
fn a_tap_is_a_tap() {
    let nic = one(&vm(|_| {}), &with_info(entry(&json!({"type": "tap"}))));
    assert_eq!(nic.plug, Plug::Tap);
}

/// The links of the pod, as sysfs has them.
fn with_links(links: &[(&str, Link)], mut sources: Sources) -> Sources {
    let links = links.iter().map(|(n, l)| ((*n).to_owned(), l.clone()));
    sources.links = Some(Links(links.collect()));
    sources
}

fn tap_of(flags: &str) -> Link {
    Link {
        alias: format!("outboard {MAC}\n"),
        mtu: "1342\n".into(),
        tun_flags: Some(flags.into()),
    }
}

/// Multus does not ask the CNI what an interface is unless a device plugin gave the pod something.
#[test]
fn a_tap_in_the_pod_is_a_tap_whatever_the_files_leave_out() {
    let unnamed = json!({"interfaces": [{"network": "net1", "mac": MAC}]});
    for files in [sources(), with_info(""), with_info(unnamed)] {
        let sources = with_links(&[("tap6c270ef2f25", tap_of("0x1002\n"))], files);
        // The port's MAC address is beside it.
        let silent = vm(|v| {
            v["spec"]["domain"]["devices"]["interfaces"][0]["macAddress"] = json!("");
        });
        for vmi in [vm(|_| {}), silent] {
            let nic = one(&vmi, &sources);
            assert_eq!((&nic.plug, nic.mtu), (&Plug::Tap, Some(1342)));
            assert_eq!((nic.mac.as_str(), nic.said_by), (MAC, links::SAID_BY));
        }
        let other = vm(|v| {
            v["spec"]["domain"]["devices"]["interfaces"][0]["macAddress"] =
                json!("02:00:00:00:00:02");
        });
        let sentence = refused(&other, &sources).to_string();
        assert!(
            sentence.contains("every packet would be dropped"),
            "{sentence}"
        );
    }
}

#[test]
fn a_network_without_device_information_is_a_socket_where_the_pod_has_no_link() {
    let named = || with_info(json!({"interfaces": [{"network": "net1", "mac": MAC, "mtu": 1400}]}));
    let nic = one(&vm(|_| {}), &with_links(&[], named()));
    let (path, mode) = (COMPUTED.into(), Mode::Server);
    assert_eq!(nic.plug, Plug::VhostUser { path, mode });
    assert_eq!((nic.mtu, nic.said_by), (Some(1400), network_info::FILE));
    // A network of another kind: QEMU would wait for a switch that never comes.
    let plain = Link {
        tun_flags: None,
        ..tap_of("")
    };
    let veth = with_links(&[("pod6c270ef2f25", plain.clone())], named());
    let sentence = refused(&vm(|_| {}), &veth).to_string();
    assert!(sentence.contains("\"kind\": \"vhostuser\""), "{sentence}");
    // What is no tap is none, whatever its name; and what is not there yet is waited for.
    let odd = with_links(&[("tap6c270ef2f25", plain)], with_info(""));
    assert!(refused(&vm(|_| {}), &odd).is_late());
}

#[rstest]
#[case::one_queue("0x1002", Some(4), None)]
#[case::many("0x1102", Some(4), Some(4))]
#[case::many_for_one_processor("0x1102", None, Some(2))]
#[case::one_and_one("0x5002", None, None)]
#[case::unreadable("?", Some(4), Some(4))]
fn a_tap_is_opened_with_as_many_queues_as_it_was_made_for(
    #[case] flags: &str,
    #[case] processors: Option<u32>,
    #[case] queues: Option<u32>,
) {
    let vmi = vm(|v| {
        v["spec"]["domain"]["cpu"] = json!({"cores": processors.unwrap_or(4)});
        v["spec"]["domain"]["devices"]["networkInterfaceMultiqueue"] = json!(processors.is_some());
    });
    let info = with_info(entry(&json!({"type": "tap"})));
    let nic = one(
        &vmi,
        &with_links(&[("tap6c270ef2f25", tap_of(flags))], info),
    );
    assert_eq!((nic.plug, nic.queues), (Plug::Tap, queues));
}

#[test]
fn without_any_file_the_path_is_computed() {
    let nic = one(&vm(|_| {}), &sources());
    let path = COMPUTED.into();
    let mode = Mode::Server;
    assert_eq!(nic.plug, Plug::VhostUser { path, mode });
    assert_eq!(nic.mtu, None);
}

#[test]
fn the_mac_is_the_vms_the_files_or_the_statuss() {
    let info = with_info(entry(&socket("/a", "server")));
    let without = |change: fn(&mut Value)| {
        vm(|v| {
            v["spec"]["domain"]["devices"]["interfaces"][0]["macAddress"] = json!("");
            change(v);
        })
    };
    assert_eq!(one(&without(|_| {}), &info).mac, MAC);
    let status = without(|v| {
        v["status"] = json!({"interfaces": [{"name": "net1", "mac": "02-00-00-00-00-AF"}]});
    });
    assert_eq!(one(&status, &sources()).mac, "02:00:00:00:00:af");
    // The case of the letters is nobody's concern.
    let loud = vm(|v| {
        v["spec"]["domain"]["devices"]["interfaces"][0]["macAddress"] = json!("02-AA-00-00-00-01");
    });
    let text = entry(&socket("/a", "server"))
        .to_string()
        .replace(MAC, "02:aa:00:00:00:01");
    assert_eq!(one(&loud, &with_info(text)).mac, "02:aa:00:00:00:01");
}

#[rstest]
#[case::topology(json!({"cpu": {"cores": 4, "sockets": 2, "threads": 2}}), 16)]
#[case::part_of_a_topology(json!({"cpu": {"cores": 4}}), 4)]
#[case::limits(json!({"resources": {"limits": {"cpu": "3"}, "requests": {"cpu": "1"}}}), 3)]
#[case::thousandths(json!({"resources": {"requests": {"cpu": "1500m"}}}), 2)]
#[case::a_number(json!({"resources": {"requests": {"cpu": 2}}}), 2)]
#[case::nothing(json!({}), 1)]
#[case::nonsense(json!({"resources": {"requests": {"cpu": "many"}}}), 1)]
#[case::more_than_there_are_queues(json!({"cpu": {"cores": 1000}}), 256)]
fn queues_are_the_processors(#[case] domain: Value, #[case] queues: u32) {
    let vmi = vm(|v| {
        let devices = v["spec"]["domain"]["devices"].take();
        v["spec"]["domain"] = domain;
        v["spec"]["domain"]["devices"] = devices;
        v["spec"]["domain"]["devices"]["networkInterfaceMultiqueue"] = json!(true);
    });
    assert_eq!(one(&vmi, &sources()).queues, Some(queues));
    assert_eq!(one(&vm(|_| {}), &sources()).queues, None);
}

#[test]
fn interfaces_of_others_are_left_alone() {
    let vmi = vm(|v| {
        v["spec"]["domain"]["devices"]["interfaces"] = json!([
            {"name": "a", "masquerade": {}},
            {"name": "b", "binding": {"name": "passt"}},
            {"name": "c", "binding": null},
            {"name": "d", "binding": {"name": "vhostuser"}, "state": "absent"},
        ]);
        v["spec"]["networks"] = Value::Null;
    });
    assert_eq!(resolve(&vmi, "vhostuser", &with_info("{")).unwrap(), []);
}

#[rstest]
#[case::not_written(String::new())]
#[case::blank("\n".into())]
#[case::no_interfaces("{}".into())]
#[case::null(json!({"interfaces": null}).to_string())]
#[case::others_alone(json!({"interfaces": [{"network": "net2"}]}).to_string())]
fn a_file_that_does_not_name_the_network_yet_is_waited_for(#[case] text: String) {
    let error = refused(&vm(|_| {}), &with_info(text));
    assert!(error.is_late(), "{error}");
    let sentence = error.to_string();
    for word in [
        "net1",
        "shop/db",
        "/etc/podinfo/network-info",
        "pod6c270ef2f25",
        "network-status",
    ] {
        assert!(sentence.contains(word), "{word}: {sentence}");
    }
}

/// A sentence with cause and remedy, at once.
#[rstest]
#[case::no_json("{".into(), "can't be read")]
#[case::another_shape("[]".into(), "can't be read")]
#[case::no_device_info(json!({"interfaces": [{"network": "net1"}]}).to_string(), "CNIDeviceInfoFile")]
#[case::pci(entry(&json!({"type": "pci"})).to_string(), "of type \"pci\"")]
#[case::no_type(entry(&json!({})).to_string(), "of type \"\"")]
#[case::no_mode(entry(&json!({"type": "vhost-user"})).to_string(), "mode \"\"")]
#[case::bad_mode(entry(&socket("/a", "both")).to_string(), "mode \"both\"")]
#[case::no_path(entry(&socket("", "server")).to_string(), "is not absolute")]
#[case::relative(entry(&socket("a/b", "server")).to_string(), "is not absolute")]
#[case::a_directory(entry(&socket("/a/", "server")).to_string(), "is not absolute")]
#[case::upwards(entry(&socket("/a/../b", "server")).to_string(), "leaves its directory")]
#[case::too_long(entry(&socket(&format!("/{}", "x".repeat(107)), "server")).to_string(), "is too long")]
#[case::a_zero(entry(&socket("/a\u{0}b", "server")).to_string(), "characters")]
#[case::another_mac(entry(&socket("/a", "server")).to_string().replace(MAC, "02:00:00:00:00:02"), "every packet would be dropped")]
#[case::no_mac_at_all(entry(&socket("/a", "server")).to_string().replace(MAC, "x"), "not the MAC address of one interface")]
#[case::many_macs(entry(&socket("/a", "server")).to_string().replace(MAC, "01:00:5e:00:00:01"), "not the MAC address of one interface")]
#[case::mtu(entry(&socket("/a", "server")).to_string().replace("1442", "67"), "between 68 and 65535")]
#[case::negative_mtu(entry(&socket("/a", "server")).to_string().replace("1442", "-1"), "between 68 and 65535")]
fn what_is_of_no_use_is_refused_with_a_sentence(#[case] info: String, #[case] says: &str) {
    let error = refused(&vm(|_| {}), &with_info(&info));
    let sentence = error.to_string();
    assert!(sentence.contains(says), "{sentence}");
    assert!(
        sentence.starts_with("interface net1 of VM shop/db: "),
        "{sentence}"
    );
    assert!(!error.is_late(), "{sentence}");
}

#[rstest]
#[case::encrypted(|v: &mut Value| v["spec"]["domain"]["launchSecurity"] = json!({"sev": {}}), "launchSecurity")]
#[case::not_virtio(|v: &mut Value| v["spec"]["domain"]["devices"]["interfaces"][0]["model"] = json!("e1000e"), "model \"e1000e\"")]
#[case::no_network(|v: &mut Value| v["spec"]["networks"] = json!([]), "spec.networks")]
#[case::bad_mac(|v: &mut Value| v["spec"]["domain"]["devices"]["interfaces"][0]["macAddress"] = json!("02:00"), "correct it in the VM")]
#[case::no_mac(|v: &mut Value| v["spec"]["domain"]["devices"]["interfaces"][0]["macAddress"] = json!(""), "set macAddress")]
#[case::pod_network(|v: &mut Value| v["spec"]["networks"] = json!([{"name": "net1", "pod": {}}]), "needs a secondary network")]
#[case::default_network(|v: &mut Value| v["spec"]["networks"][0]["multus"]["default"] = json!(true), "needs a secondary network")]
fn a_vm_that_cannot_be_is_refused_with_a_sentence(
    #[case] change: fn(&mut Value),
    #[case] says: &str,
) {
    let error = refused(&vm(change), &sources());
    let sentence = error.to_string();
    assert!(sentence.contains(says), "{sentence}");
    assert!(!error.is_late(), "{sentence}");
}

#[test]
fn the_pods_own_network_counts_when_network_info_names_it() {
    let pod = vm(|v| v["spec"]["networks"] = json!([{"name": "net1", "pod": {}}]));
    assert!(refused(&pod, &with_info("")).is_late());
    let nic = one(&pod, &with_info(entry(&socket("/a", "server"))));
    assert_eq!(nic.ifname, "eth0");
}

#[test]
fn two_interfaces_never_share_a_socket() {
    let vmi = vm(|v| {
        v["spec"]["domain"]["devices"]["interfaces"] = json!([
            {"name": "net1", "macAddress": MAC, "binding": {"name": "vhostuser"}},
            {"name": "net2", "macAddress": MAC, "binding": {"name": "vhostuser"}},
        ]);
        v["spec"]["networks"] = json!([
            {"name": "net1", "multus": {"networkName": "fast"}},
            {"name": "net2", "multus": {"networkName": "fast"}},
        ]);
    });
    let device = socket("/same", "server");
    let info = json!({"interfaces": [
        {"network": "net1", "deviceInfo": device}, {"network": "net2", "deviceInfo": device},
    ]});
    let sentence = refused(&vmi, &with_info(info)).to_string();
    assert!(
        sentence.contains("net2") && sentence.contains("is interface net1's"),
        "{sentence}"
    );
}

/// virt-launcher discards what the target's sidecar answers, so only an error can stop what would not fit.
#[test]
fn a_migration_stays_on_one_kind_of_node() {
    let migrating = |kind: Option<&str>| {
        vm(|v| {
            v["metadata"]["annotations"] = kind.map_or(
                Value::Null,
                |kind| json!({"iaas.yusur.io/interface-kind": kind}),
            );
            v["status"] = json!({"migrationState": {"sourceNode": "n1", "targetNode": "n2"}});
        })
    };
    let socket = with_info(entry(&socket("/a", "server")));
    let tap = with_info(entry(&json!({"type": "tap"})));
    one(&migrating(None), &socket);
    one(&migrating(Some("tap")), &tap);
    for (vmi, sources, says) in [
        (
            migrating(None),
            &tap,
            "would become tap where it was vhost-user",
        ),
        (
            migrating(Some("tap")),
            &socket,
            "would become vhost-user where it was tap",
        ),
    ] {
        let sentence = refused(&vmi, sources).to_string();
        assert!(
            sentence.contains(says) && sentence.contains("from n1 to n2"),
            "{sentence}"
        );
    }
    // One that is over is none.
    let over = vm(|v| v["status"] = json!({"migrationState": {"completed": true}}));
    one(&over, &tap);
}

fn downward(annotations: &[(&str, &str)]) -> Sources {
    let line = |(key, value): &(&str, &str)| format!("{key}={}\n", Value::from(*value));
    Sources {
        annotations: Some(annotations.iter().map(line).collect()),
        ..sources()
    }
}

#[test]
fn annotations_name_the_interface_or_the_network() {
    let status = |interface: &str, name: &str| {
        json!([
            {"name": "cbr0", "interface": "eth0", "device-info": socket("/wrong", "server")},
            {"name": name, "interface": interface, "mtu": 1400, "device-info": socket("/s=1.sock", "server")},
        ])
        .to_string()
    };
    for (interface, name) in [
        ("pod6c270ef2f25", "other/thing"),
        ("net1", "shop/fast"),
        ("", "shop/fast"),
    ] {
        let status = status(interface, name);
        let nic = one(
            &vm(|_| {}),
            &downward(&[("k8s.v1.cni.cncf.io/network-status", &status)]),
        );
        assert_eq!(nic.said_by, annotations::FILE);
        assert_eq!(nic.mtu, Some(1400));
    }
    let elsewhere = status("net9", "other/thing");
    let error = refused(
        &vm(|_| {}),
        &downward(&[("k8s.v1.cni.cncf.io/network-status", &elsewhere)]),
    );
    assert!(error.is_late(), "{error}");
}

/// What the userspace CNI plugin writes, read as app-netutil reads it.
#[test]
fn userspace_configuration_is_the_fallback() {
    let configuration = r#"[{"containerId": "c", "ifName": "pod6c270ef2f25", "name": "n",
        "config": {"engine": "ovs-dpdk", "iftype": "vhostuser", "netType": "interface",
                   "vhost": {"mode": "server", "socketfile": "c-net1"}}}]"#;
    let all = [
        ("userspace/configuration-data", configuration),
        ("userspace/mapped-dir", "/var/lib/cni/usrspcni/"),
        ("k8s.v1.cni.cncf.io/networks", "a, b"),
    ];
    let nic = one(&vm(|_| {}), &downward(&all));
    let path = "/var/lib/cni/usrspcni/c-net1".into();
    let mode = Mode::Server;
    assert_eq!(nic.plug, Plug::VhostUser { path, mode });
    // Go's escapes that JSON has not: done as app-netutil does.
    let quoted = format!(
        "userspace/mapped-dir=\"/d/\"\nuserspace/configuration-data=\"{}\\x20\"",
        configuration.replace('"', "\\\"").replace('\n', "\\n")
    )
    .replace("\\x20", "\\a");
    let odd = Sources {
        annotations: Some(quoted.replace("\\a\"", "\"")),
        ..sources()
    };
    one(&vm(|_| {}), &odd);
}

#[test]
fn annotations_that_are_spoilt_are_refused() {
    for (key, value) in [
        ("k8s.v1.cni.cncf.io/network-status", "{"),
        ("userspace/configuration-data", "7"),
    ] {
        let sentence = refused(&vm(|_| {}), &downward(&[(key, value)])).to_string();
        assert!(
            sentence.contains("/etc/podnetinfo/annotations can't be read"),
            "{sentence}"
        );
    }
}

fn claimed(text: &str) -> (Vmi, Sources) {
    let vmi = vm(|v| {
        v["spec"]["networks"] =
            json!([{"name": "net1", "resourceClaim": {"claimName": "c", "requestName": "r"}}]);
    });
    let file = dra::File {
        claim: "c".into(),
        request: "r".into(),
        text: text.into(),
    };
    (
        vmi,
        Sources {
            dra: vec![file],
            ..sources()
        },
    )
}

fn metadata(devices: &Value) -> String {
    let requests = json!([{"name": "r", "devices": devices}]);
    let known = json!({"apiVersion": "metadata.resource.k8s.io/v1alpha1", "requests": requests});
    format!(
        "{}\n{known}",
        json!({"apiVersion": "metadata.resource.k8s.io/v2"})
    )
}

#[test]
fn a_claim_has_a_socket() {
    let device = json!([{"attributes": {"d.example/vhost-user-path": {"string": "/s"}, "mtu": {"int": 9000}}}]);
    let (vmi, sources) = claimed(&metadata(&device));
    let nic = one(&vmi, &sources);
    let mode = Mode::Server;
    assert_eq!(
        nic.plug,
        Plug::VhostUser {
            path: "/s".into(),
            mode
        }
    );
    assert_eq!(nic.mtu, Some(9000));
    let (vmi, sources) = claimed("");
    assert!(refused(&vmi, &sources).is_late());
}

#[rstest]
#[case::no_socket(metadata(&json!([{"attributes": {}}])), "no attribute vhost-user-path")]
#[case::two_devices(metadata(&json!([{}, {}])), "exactly one device")]
#[case::no_request(metadata(&json!([])), "exactly one device")]
#[case::other_versions(json!({"apiVersion": "x"}).to_string(), "no version of it is known")]
#[case::no_json("}".into(), "can't be read")]
fn a_claim_without_a_socket_is_refused(#[case] text: String, #[case] says: &str) {
    let (vmi, sources) = claimed(&text);
    let sentence = refused(&vmi, &sources).to_string();
    assert!(sentence.contains(says), "{sentence}");
}

#[test]
fn what_is_no_vmi_is_refused() {
    for text in ["", "[]", "{\"spec\": 7}"] {
        let error = Vmi::from_json(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("VirtualMachineInstance"), "{error}");
    }
}
