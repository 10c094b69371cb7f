//! The card's side: ports by their names, by devlink, and of several cards.

use proptest::prelude::*;

use super::tree::Tree;
use crate::devlink::{self, Flavour};
use crate::ports::Observed;
use crate::{Error, Part, PortName, Ports, Scope, Source, Sysfs};

const PF: &str = "0000:03:00.0";
const PF1: &str = "0000:03:00.1";

fn controller(controller: u32) -> Scope {
    Scope {
        controller: Some(controller),
        ..Scope::default()
    }
}

fn uplinks(names: &[&str]) -> Scope {
    Scope {
        uplinks: names.iter().map(|name| (*name).into()).collect(),
        ..Scope::default()
    }
}

fn ports(sysfs: &Sysfs) -> Ports {
    sysfs.ports(None).unwrap()
}

fn link(ports: &Ports, vf: u32, scope: &Scope) -> Option<String> {
    let found = ports.find(0, Some(vf), scope).unwrap();
    found.map(|port| port.link.clone())
}

fn ambiguity(ports: &Ports, scope: &Scope) -> String {
    let why = ports.find(0, Some(0), scope).unwrap_err();
    assert!(matches!(why, Error::Ambiguous { .. }), "{why}");
    why.to_string()
}

/// A DPU: two PFs with a switch each, four functions of the host on each, and two of the DPU's own.
fn dpu() -> Tree {
    let mut tree = Tree::new();
    for (device, number, switch) in [(PF, 0, "aa"), (PF1, 1, "bb")] {
        tree.device(device, "0x020000");
        tree.port(device, &format!("p{number}"), switch, &format!("p{number}"));
        tree.port(
            device,
            &format!("pf{number}hpf"),
            switch,
            &format!("c1pf{number}"),
        );
        for vf in 0..4 {
            tree.port(
                device,
                &format!("pf{number}vf{vf}"),
                switch,
                &format!("c1pf{number}vf{vf}"),
            );
        }
        tree.port(
            device,
            &format!("en3f{number}pf{number}sf0"),
            switch,
            &format!("pf{number}sf0"),
        );
        // A function of the DPU's own has the number of one of the host's.
        tree.port(
            device,
            &format!("own{number}"),
            switch,
            &format!("pf{number}vf7"),
        );
    }
    tree
}

#[test]
fn functions_of_the_host_are_found_by_number_and_back() {
    let tree = dpu();
    let ports = ports(&tree.sysfs());
    for scope in [Scope::default(), controller(1)] {
        assert_eq!(link(&ports, 3, &scope).as_deref(), Some("pf0vf3"));
        let whole = ports.find(1, None, &scope).unwrap().unwrap();
        assert_eq!(whole.link, "pf1hpf");
        assert_eq!(ports.count(&scope).unwrap(), 8);
    }
    let port = ports.of_link("pf1vf2").unwrap();
    let name = PortName::Function {
        controller: Some(1),
        physical: 1,
        of: Part::Virtual(2),
    };
    assert_eq!((port.name, port.source), (name, Source::Sysfs));
    assert_eq!(port.switch.as_deref(), Some("bb"));
    assert_eq!(port.device.as_deref(), Some(PF1));
    assert_eq!(ports.of_link("lo"), None);
}

#[test]
fn a_function_of_the_dpu_itself_is_not_the_hosts() {
    let tree = dpu();
    let ports = ports(&tree.sysfs());
    for scope in [Scope::default(), controller(1), controller(2)] {
        assert_eq!(link(&ports, 7, &scope), None);
    }
    // Only who asks for it gets it.
    assert_eq!(link(&ports, 7, &controller(0)).as_deref(), Some("own0"));
    assert_eq!(link(&ports, 3, &controller(0)), None);
    assert_eq!(ports.count(&controller(2)).unwrap(), 0);
}

#[test]
fn a_card_without_controllers_has_one_host() {
    let mut tree = Tree::new();
    tree.device(PF, "0x020000");
    tree.port(PF, "eth0", "aa", "p0");
    tree.port(PF, "eth1", "aa", "pf0vf0");
    tree.port(PF, "eth2", "aa", "pf0vf1");
    let ports = ports(&tree.sysfs());
    assert_eq!(link(&ports, 1, &Scope::default()).as_deref(), Some("eth2"));
    assert_eq!(link(&ports, 1, &controller(0)).as_deref(), Some("eth2"));
    assert_eq!(link(&ports, 1, &controller(1)), None);
    assert_eq!(link(&ports, 2, &Scope::default()), None);
    assert_eq!(ports.find(1, Some(0), &Scope::default()).unwrap(), None);
}

#[test]
fn two_hosts_on_one_card_are_told_by_their_controllers() {
    let mut tree = Tree::new();
    tree.device(PF, "0x020000");
    tree.port(PF, "a", "aa", "c1pf0vf0");
    tree.port(PF, "b", "aa", "c2pf0vf0");
    let ports = ports(&tree.sysfs());
    assert_eq!(link(&ports, 0, &controller(1)).as_deref(), Some("a"));
    assert_eq!(link(&ports, 0, &controller(2)).as_deref(), Some("b"));
    let why = ambiguity(&ports, &Scope::default());
    assert!(
        why.contains("c1pf0 of 0000:03:00.0") && why.contains("c2pf0 of 0000:03:00.0"),
        "{why}"
    );
    assert!(why.contains("spec.controller"), "{why}");
}

/// Two cards; the second has more functions than the first.
fn two_cards(first: &str, second: &str) -> Tree {
    let mut tree = Tree::new();
    for (device, letter, switch, vfs) in [(PF, 'a', first, 2), ("0000:82:00.0", 'b', second, 3)] {
        tree.device(device, "0x020000");
        tree.port(device, &format!("{letter}up"), switch, "p0");
        for vf in 0..vfs {
            tree.port(
                device,
                &format!("{letter}{vf}"),
                switch,
                &format!("pf0vf{vf}"),
            );
        }
    }
    tree
}

#[test]
fn two_cards_are_told_by_the_uplink() {
    let tree = two_cards("aa", "bb");
    let ports = ports(&tree.sysfs());
    let why = ambiguity(&ports, &Scope::default());
    assert!(
        why.contains("pf0 of 0000:03:00.0") && why.contains("pf0 of 0000:82:00.0"),
        "{why}"
    );
    assert!(why.contains("--uplink"), "{why}");
    assert!(ports.count(&Scope::default()).is_err());
    for chosen in ["bup", "0000:82:00.0"] {
        assert_eq!(link(&ports, 1, &uplinks(&[chosen])).as_deref(), Some("b1"));
        assert_eq!(ports.count(&uplinks(&[chosen])).unwrap(), 3);
    }
    assert_eq!(link(&ports, 2, &uplinks(&["aup"])), None);
    ambiguity(&ports, &uplinks(&["aup", "bup"]));
}

#[test]
fn a_number_that_one_of_two_cards_has_is_not_taken_for_the_other_ones() {
    let tree = two_cards("aa", "bb");
    let ports = ports(&tree.sysfs());
    // pf0vf2 is on the second card alone, and the host may be the first one's.
    assert!(ports.find(0, Some(2), &Scope::default()).is_err());
}

#[test]
fn halves_of_a_card_for_two_sockets_share_a_switch_and_are_two_cards() {
    let tree = two_cards("aa", "aa");
    let ports = ports(&tree.sysfs());
    ambiguity(&ports, &Scope::default());
    assert_eq!(link(&ports, 0, &uplinks(&["bup"])).as_deref(), Some("b0"));
    assert_eq!(link(&ports, 2, &uplinks(&["aup"])), None);
}

#[test]
fn two_pfs_of_one_card_are_two_devices_with_a_number_each() {
    let tree = dpu();
    let ports = ports(&tree.sysfs());
    let found = ports.find(1, Some(0), &uplinks(&["p0", "p1"])).unwrap();
    assert_eq!(found.unwrap().link, "pf1vf0");
    assert_eq!(ports.find(1, Some(0), &uplinks(&["p0"])).unwrap(), None);
}

#[test]
fn an_uplink_that_is_none_is_refused_with_those_there_are() {
    let tree = two_cards("aa", "bb");
    let all = ports(&tree.sysfs());
    let why = all.find(0, Some(0), &uplinks(&["a0"])).unwrap_err();
    assert!(
        why.to_string()
            .contains("aup (0000:03:00.0), bup (0000:82:00.0)"),
        "{why}"
    );
    let empty = Tree::new();
    let none = ports(&empty.sysfs());
    let why = none.find(0, Some(0), &uplinks(&["p0"])).unwrap_err();
    assert!(why.to_string().contains("switchdev"));
}

#[test]
fn a_port_without_a_device_is_where_its_switch_is() {
    let observed = |link: &str, switch: &str, port: &str| Observed {
        link: link.into(),
        switch: switch.into(),
        device: None,
        port_name: Some(port.into()),
    };
    let links = vec![
        observed("up", "aa", "p0"),
        observed("r", "aa", "pf0vf0"),
        observed("s", "bb", "pf0vf0"),
    ];
    let ports = Ports::new(links, &[]);
    assert_eq!(link(&ports, 0, &uplinks(&["up"])).as_deref(), Some("r"));
    ambiguity(&ports, &Scope::default());
}

#[test]
fn devlink_knows_better_than_the_name() {
    let observed = |link: &str, port: &str| Observed {
        link: link.into(),
        switch: "aa".into(),
        device: Some(PF.into()),
        port_name: Some(port.into()),
    };
    let said = |link: &str, flavour: Option<Flavour>| devlink::Port {
        bus: "pci".into(),
        device: PF.into(),
        link: Some(link.into()),
        flavour,
    };
    let function = Flavour::Function {
        controller: 1,
        external: true,
        physical: 0,
        of: Part::Virtual(3),
    };
    let links = vec![observed("l3", "c1pf0vf5"), observed("l5", "nonsense")];
    let all = [
        // Whatever their names in sysfs are.
        said("l1", Some(function)),
        said(
            "l2",
            Some(Flavour::Physical {
                port: 0,
                part: None,
            }),
        ),
        // A driver that says nothing to devlink but that there is a port.
        said("l3", None),
        // A port of another kind.
        said("l4", Some(Flavour::Other)),
    ];
    let ports = Ports::new(links, &all);
    assert_eq!(link(&ports, 3, &Scope::default()).as_deref(), Some("l1"));
    assert_eq!(link(&ports, 5, &uplinks(&["l2"])).as_deref(), Some("l3"));
    assert_eq!(link(&ports, 6, &Scope::default()), None);
    let sources: Vec<_> = ports.iter().map(|p| (p.link.as_str(), p.source)).collect();
    assert_eq!(
        sources,
        [
            ("l1", Source::Devlink),
            ("l2", Source::Devlink),
            ("l3", Source::Sysfs)
        ]
    );
}

/// Small numbers, so that ports meet.
fn any_observed() -> impl Strategy<Value = Observed> {
    let name = prop_oneof![
        (0u32..2).prop_map(|port| format!("p{port}")),
        (proptest::option::of(1u32..3), 0u32..2, 0u32..3).prop_map(|(c, pf, vf)| {
            let c = c.map(|c| format!("c{c}")).unwrap_or_default();
            format!("{c}pf{pf}vf{vf}")
        }),
    ];
    (name, 0u32..2, 0u32..2).prop_map(|(name, switch, device)| Observed {
        link: String::new(),
        switch: format!("s{switch}"),
        device: Some(format!("0000:0{device}:00.0")),
        port_name: Some(name),
    })
}

proptest! {
    /// What is found has the number that was asked for, is of the host's controller, and nothing else of that PF could be meant.
    #[test]
    fn a_found_port_is_the_only_one_that_could_be_meant(
        observed in proptest::collection::vec(any_observed(), 0..12),
        physical in 0u32..2, vf in 0u32..3, wanted in proptest::option::of(0u32..3),
    ) {
        let mut links = observed;
        for (index, link) in (1..).zip(&mut links) {
            link.link = format!("l{index}");
        }
        // A card has a port once.
        links.sort_by(|a, b| (&a.device, &a.port_name).cmp(&(&b.device, &b.port_name)));
        links.dedup_by(|a, b| (&a.device, &a.port_name) == (&b.device, &b.port_name));
        let ports = Ports::new(links, &[]);
        let scope = Scope { controller: wanted, ..Scope::default() };
        if let Ok(Some(found)) = ports.find(physical, Some(vf), &scope) {
            let PortName::Function { controller, physical: p, of } = found.name else { unreachable!() };
            prop_assert_eq!((p, of), (physical, Part::Virtual(vf)));
            if let Some(wanted) = wanted {
                prop_assert_eq!(controller.unwrap_or(0), wanted);
            }
            let rivals = ports.iter().filter(|port| match port.name {
                PortName::Function { controller: c, physical: p, .. } => {
                    p == physical && port.device != found.device && c == controller
                }
                PortName::Uplink { .. } => false,
            });
            prop_assert_eq!(rivals.count(), 0);
        }
    }
}
