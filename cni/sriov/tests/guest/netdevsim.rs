//! The card's side: two simulated cards with a switch each, both with a `pf0vf0`.

use serde_json::{Value, json};

use crate::machine::Machine;

/// By id of the device: how many virtual functions it has.
const CARDS: [(u32, u32); 2] = [(10, 2), (20, 3)];

#[test]
fn representors_are_found_by_number_and_back() {
    let machine = Machine::boot(&["netdevsim"], |_| {});
    before_switchdev(&machine);
    one_card(&machine);
    two_cards(&machine);
    renamed_and_moved(&machine);
    back_to_legacy(&machine);
}

fn new_card((id, functions): (u32, u32)) -> String {
    format!(
        "echo '{id} 1' >/sys/bus/netdevsim/new_device
         echo {functions} >/sys/bus/netdevsim/devices/netdevsim{id}/sriov_numvfs"
    )
}

fn mode(machine: &Machine, id: u32, mode: &str) {
    machine.run(&format!(
        "/sbin/devlink dev eswitch set netdevsim/netdevsim{id} mode {mode}"
    ));
    let said = machine.ask(&format!("eswitch netdevsim netdevsim{id}"));
    assert_eq!(said, mode);
}

/// The ports by device: (port, link).
fn ports(machine: &Machine, device: &str, how: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let all = machine.ask(&format!("ports {how}"));
    let of_device = all.as_array().expect("a list").iter();
    let mut ports: Vec<_> = of_device
        .filter(|port| port["device"] == device)
        .map(|port| (text(&port["name"]), text(&port["link"])))
        .collect();
    ports.sort();
    ports
}

fn names(ports: &[(String, String)]) -> Vec<&str> {
    ports.iter().map(|(name, _)| name.as_str()).collect()
}

fn link<'a>(ports: &'a [(String, String)], name: &str) -> &'a str {
    let found = ports.iter().find(|(of, _)| of == name);
    &found.unwrap_or_else(|| panic!("{name} in {ports:?}")).1
}

fn before_switchdev(machine: &Machine) {
    machine.run(&new_card(CARDS[0]));
    assert_eq!(machine.ask("eswitch netdevsim netdevsim10"), "legacy");
    assert_eq!(machine.ask("eswitch netdevsim netdevsim99"), Value::Null);
    // The uplink is there in both modes, representors are not.
    assert_eq!(names(&ports(machine, "netdevsim10", "")), ["p1"]);
    assert_eq!(machine.ask("find 0 0 netdevsim10"), Value::Null);
    let why = machine.refusal("find 0 0 eth9");
    assert!(
        why.contains("eth9 is no uplink") && why.contains("(netdevsim10)"),
        "{why}"
    );
}

fn one_card(machine: &Machine) {
    mode(machine, 10, "switchdev");
    let ports_by_devlink = ports(machine, "netdevsim10", "");
    assert_eq!(names(&ports_by_devlink), ["p1", "pf0vf0", "pf0vf1"]);
    // Both ways of asking the kernel agree; devlink goes first.
    assert_eq!(ports(machine, "netdevsim10", "sysfs"), ports_by_devlink);
    let sources = machine.ask("ports");
    assert!(
        sources
            .as_array()
            .expect("a list")
            .iter()
            .all(|port| port["source"] == "devlink"),
        "{sources}"
    );
    let found = machine.ask("find 0 1");
    assert_eq!(found["link"], link(&ports_by_devlink, "pf0vf1"));
    // And back: what the link is says the same function.
    assert_eq!(found["name"], "pf0vf1");
    assert_eq!(machine.ask("find 0 2"), Value::Null);
    assert_eq!(machine.ask("find 1 0"), Value::Null);
}

fn two_cards(machine: &Machine) {
    machine.run(&new_card(CARDS[1]));
    mode(machine, 20, "switchdev");
    let switches = machine.ask("ports sysfs");
    let mut ids: Vec<&str> = Vec::new();
    for port in switches.as_array().expect("a list") {
        let (device, id) = (&port["device"], port["switch"].as_str().expect("a text"));
        let same = |other: &&Value| &other["device"] == device;
        let mut of_device = switches.as_array().expect("a list").iter().filter(same);
        assert!(of_device.all(|other| other["switch"] == id), "{switches}");
        ids.push(id);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 2, "a switch for each card: {switches}");
    // The function of which card? Nobody knows, also for the number that one card has alone.
    for vf in [0, 2] {
        let why = machine.refusal(&format!("find 0 {vf}"));
        assert!(
            why.contains("netdevsim10") && why.contains("netdevsim20"),
            "{why}"
        );
        assert!(why.contains("--uplink"), "{why}");
    }
    for (id, functions) in CARDS {
        let device = format!("netdevsim{id}");
        let ports = ports(machine, &device, "");
        let uplink = link(&ports, "p1");
        for chosen in [uplink, device.as_str()] {
            for vf in 0..functions {
                let found = machine.ask(&format!("find 0 {vf} {chosen}"));
                assert_eq!(found["link"], link(&ports, &format!("pf0vf{vf}")));
                assert_eq!(found["device"], device.as_str());
            }
            let beyond = machine.ask(&format!("find 0 {functions} {chosen}"));
            assert_eq!(beyond, Value::Null);
        }
    }
}

fn renamed_and_moved(machine: &Machine) {
    let ports_before = ports(machine, "netdevsim20", "");
    let representor = link(&ports_before, "pf0vf2");
    machine.run(&format!("ip link set {representor} name tenant2"));
    for how in ["", "sysfs"] {
        assert_eq!(
            link(&ports(machine, "netdevsim20", how), "pf0vf2"),
            "tenant2"
        );
    }
    assert_eq!(machine.ask("find 0 2 netdevsim20")["link"], "tenant2");
    // In another namespace it is nobody's here, and here again it is found.
    machine.run("ip netns add away; ip link set tenant2 netns away");
    assert_eq!(machine.ask("find 0 2 netdevsim20"), Value::Null);
    machine.run("ip -n away link set tenant2 netns 1; ip netns del away");
    assert_eq!(machine.ask("find 0 2 netdevsim20")["link"], "tenant2");
}

fn back_to_legacy(machine: &Machine) {
    mode(machine, 20, "legacy");
    assert_eq!(machine.ask("find 0 0 netdevsim10")["device"], "netdevsim10");
    let names_in_legacy = ports(machine, "netdevsim20", "");
    assert!(
        !names(&names_in_legacy)
            .iter()
            .any(|name| name.starts_with("pf")),
        "{names_in_legacy:?}"
    );
    // With one switch left nothing is ambiguous any more.
    assert_eq!(machine.ask("find 0 1")["device"], "netdevsim10");
    mode(machine, 20, "switchdev");
    let again = ports(machine, "netdevsim20", "");
    assert_eq!(names(&again), ["p1", "pf0vf0", "pf0vf1", "pf0vf2"]);
    assert_eq!(
        machine.ask("find 0 2 netdevsim20")["link"],
        json!(link(&again, "pf0vf2"))
    );
}
