use super::*;
use crate::netlink::Link;
use crate::vhostuser::asked::Fallback;

const MAC: &str = "0a:58:0a:f4:01:07";

fn tap(ifname: &str) -> Result<Tap, Error> {
    let pod = Pod {
        namespace: "vms".into(),
        name: "virt-launcher-a".into(),
        uid: "u".into(),
    };
    let asked = Asked {
        queues: 2,
        volume: None,
        fallback: Fallback::Tap,
        device_info: None,
    };
    Tap::new(&pod, ifname, &asked)
}

#[test]
fn the_names_are_those_that_kubevirt_and_the_shim_compute() {
    let tap = tap("pod6c270ef2f25").unwrap();
    assert_eq!((tap.name.as_str(), tap.queues), ("tap6c270ef2f25", 2));
    assert!(tap.bridge.len() <= 15 && !crate::attachment::is_host_link(&tap.bridge));
}

#[test]
fn an_interface_of_another_name_gets_none() {
    for ifname in [
        "eth0",
        "net1",
        "pod6c270ef2f2",
        "pod6c270ef2f256",
        "pod6C270EF2F25",
        "podx",
    ] {
        let error = tap(ifname).unwrap_err();
        assert_eq!(error.code, code::REFUSED);
        assert!(error.cause.contains(ifname), "{error}");
    }
}

#[test]
fn each_difference_is_a_clause() {
    let tap = Tap {
        mtu: 1400,
        ..tap("pod6c270ef2f25").unwrap()
    };
    let link = |index, name: &str| Link {
        index,
        name: name.to_owned(),
        veth: false,
        tap: name == tap.name,
        bridge: (index != 2).then_some(2),
        alias: (name == tap.name).then(|| format!("outboard {MAC}")),
        mac: None,
        mtu: 1400,
        up: true,
        carrier: true,
        peer: None,
        parent: None,
    };
    let whole = check::Seen {
        end: Some(link(3, "pod6c270ef2f25")),
        bridge: Some(link(2, &tap.bridge)),
        tap: Some(Link {
            carrier: false,
            ..link(4, &tap.name)
        }),
    };
    assert_eq!(check::differences(&tap, MAC, &whole), None);
    type Spoil = fn(&mut check::Seen);
    let cases: [(Spoil, &str); 9] = [
        (|seen| seen.end = None, "the interface does not exist"),
        (|seen| seen.bridge = None, "its bridge ob-6c270ef2f25"),
        (|seen| seen.tap = None, "its tap tap6c270ef2f25"),
        (|seen| seen.tap.as_mut().unwrap().tap = false, "is no tap"),
        (
            |seen| seen.tap.as_mut().unwrap().alias = None,
            "does not say its MAC",
        ),
        (
            |seen| seen.tap.as_mut().unwrap().bridge = None,
            "tap6c270ef2f25 is not on its bridge",
        ),
        (
            |seen| seen.end.as_mut().unwrap().mtu = 1500,
            "the MTU of pod6c270ef2f25 is 1500, not 1400",
        ),
        (
            |seen| seen.bridge.as_mut().unwrap().up = false,
            "ob-6c270ef2f25 is down",
        ),
        (
            |seen| seen.end.as_mut().unwrap().carrier = false,
            "end on the host is down",
        ),
    ];
    for (spoil, says) in cases {
        let mut seen = whole.clone();
        spoil(&mut seen);
        let said = check::differences(&tap, MAC, &seen).unwrap();
        assert!(said.contains(says), "{said}");
    }
}
