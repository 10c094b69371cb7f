//! The host's side: an Intel 82576 with seven virtual functions behind an IOMMU.

use serde_json::{Value, json};

use crate::machine::Machine;

const PF: &str = "0000:01:00.0";
/// Of VF 0, 1 and 2: the kernel's word, from the card's capability.
const VF: [&str; 3] = ["0000:01:10.0", "0000:01:10.2", "0000:01:10.4"];

#[test]
fn functions_are_followed_wherever_they_go() {
    let machine = Machine::boot(&["igb", "igbvf", "vfio-pci", "macvlan"], |spec| {
        spec.first = ["-device", "intel-iommu,intremap=on"]
            .map(Into::into)
            .into();
        spec.kernel = vec!["intel_iommu=on".into()];
        spec.arguments = [
            "-netdev",
            "user,id=n0",
            "-device",
            "igb,bus=fn0,netdev=n0,mac=02:00:00:00:aa:01",
        ]
        .map(Into::into)
        .into();
    });
    inventory(&machine);
    a_function_in_a_namespace(&machine);
    mac_and_vlan_by_the_card(&machine);
    a_function_of_a_vm(&machine);
    changes_are_told(&machine);
    functions_that_have_gone(&machine);
}

fn function(machine: &Machine, number: usize) -> Value {
    machine.ask(&format!("function {}", VF[number]))
}

fn inventory(machine: &Machine) {
    let cards = machine.ask("inventory");
    let card = &cards[0];
    assert_eq!(cards.as_array().map(Vec::len), Some(1), "{cards}");
    assert_eq!(card["address"], PF);
    assert_eq!((&card["total"], &card["enabled"]), (&json!(7), &json!(0)));
    assert_eq!(
        (&card["driver"], &card["functions"]),
        (&json!("igb"), &json!([]))
    );
    let link = card["link"]
        .as_str()
        .expect("the card has a link")
        .to_owned();
    machine.run(&format!(
        "echo 3 >/sys/class/net/{link}/device/sriov_numvfs; ip link set {link} up"
    ));
    let card = &machine.ask("inventory")[0];
    assert_eq!((&card["number"], &card["enabled"]), (&json!(0), &json!(3)));
    let functions = card["functions"].as_array().expect("a list");
    for (number, found) in functions.iter().enumerate() {
        assert_eq!(found["address"], VF[number]);
        assert_eq!(found["number"], number);
        assert_eq!(found["physical"], PF);
        assert_eq!(
            (&found["driver"], &found["vfio"]),
            (&json!("igbvf"), &json!(false))
        );
        assert!(
            found["link"].is_string() && found["mac"].is_string(),
            "{found}"
        );
    }
    assert_eq!(functions.len(), 3);
    // The switch in this card is its own affair.
    assert_eq!(machine.ask(&format!("eswitch {link}")), "legacy");
    assert_eq!(machine.ask("ports"), json!([]));
    let why = machine.refusal(&format!("function {PF}"));
    assert!(why.contains("no virtual function"), "{why}");
}

/// The link goes and takes a name and an address; the function is found all the same. The namespace dies with it in it.
fn a_function_in_a_namespace(machine: &Machine) {
    let before = function(machine, 2);
    let link = before["link"].as_str().expect("a text");
    machine.run(&format!(
        "ip netns add pod; ip link set {link} netns pod
         ip -n pod link set {link} name pod0 address 02:00:00:00:cc:03 mtu 1400; ip -n pod link set pod0 up
         ip -n pod link add link pod0 name pod0.7 type macvlan"
    ));
    // Whose link it is cannot be changed from there; what is made over it is nobody's, or says that it was made.
    let said = machine.run("ip -n pod -d link show pod0; ip -n pod -d link show pod0.7");
    let (own, over) = said
        .split_once("pod0.7")
        .unwrap_or_else(|| panic!("{said}"));
    assert!(
        own.contains(&format!("parentdev {}", VF[2])) && own.contains("mtu 1400"),
        "{said}"
    );
    assert!(
        !over.contains("parentdev") || over.contains("macvlan"),
        "{said}"
    );
    let away = function(machine, 2);
    assert_eq!((&away["link"], &away["mac"]), (&Value::Null, &Value::Null));
    assert_eq!(
        (&away["number"], &away["driver"]),
        (&json!(2), &json!("igbvf"))
    );
    assert_eq!(
        machine.ask("inventory")[0]["functions"]
            .as_array()
            .expect("a list")
            .len(),
        3
    );
    machine.run("ip netns del pod");
    // The kernel takes a namespace down behind the caller's back.
    machine.run("until [ -e /sys/class/net/pod0 ]; do usleep 20000; done");
    let back = function(machine, 2);
    assert_eq!(back["link"], "pod0", "it keeps the name that it had there");
    assert_eq!(back["mac"], "02:00:00:00:cc:03", "and the address");
    machine.run(&format!(
        "ip link set pod0 down; ip link set pod0 name {link} address {}",
        before["mac"].as_str().expect("a text")
    ));
    assert_eq!(function(machine, 2), before);
}

/// What the card does with a function is said to the PF; a new MAC is the function's when its driver begins anew.
fn mac_and_vlan_by_the_card(machine: &Machine) {
    let card = machine.ask("inventory")[0]["link"]
        .as_str()
        .expect("a text")
        .to_owned();
    machine.run(&format!(
        "ip link set {card} vf 1 mac 02:00:00:00:bb:07; ip link set {card} vf 1 vlan 100"
    ));
    let said = machine.run(&format!("ip link show {card}"));
    let line = said.lines().find(|line| line.trim().starts_with("vf 1 "));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(
        line.contains("02:00:00:00:bb:07") && line.contains("vlan 100"),
        "{line}"
    );
    let address = VF[1];
    machine.run(&format!(
        "echo {address} >/sys/bus/pci/drivers/igbvf/unbind; echo {address} >/sys/bus/pci/drivers/igbvf/bind"
    ));
    assert_eq!(function(machine, 1)["mac"], "02:00:00:00:bb:07");
}

fn a_function_of_a_vm(machine: &Machine) {
    let address = VF[0];
    let why = machine.refusal(&format!("bind {address} no-such-driver"));
    assert!(why.contains("modprobe no-such-driver"), "{why}");
    machine.ask(&format!("bind {address} vfio-pci"));
    let bound = function(machine, 0);
    assert_eq!(
        (&bound["driver"], &bound["vfio"]),
        (&json!("vfio-pci"), &json!(true))
    );
    assert_eq!(bound["link"], Value::Null);
    let group = bound["iommu_group"].as_str().expect("there is an IOMMU");
    assert_ne!(
        function(machine, 1)["iommu_group"],
        group,
        "each has a group of its own"
    );
    machine.run(&format!("[ -c /dev/vfio/{group} ]"));
    // The card still takes its MAC from the PF.
    let card = machine.ask("inventory")[0]["link"]
        .as_str()
        .expect("a text")
        .to_owned();
    machine.run(&format!("ip link set {card} vf 0 mac 02:00:00:00:bb:01"));
    // Again: nothing happens.
    machine.ask(&format!("bind {address} vfio-pci"));
    assert_eq!(machine.ask(&format!("release {address}")), "igbvf");
    let back = function(machine, 0);
    assert_eq!(
        (&back["vfio"], &back["mac"]),
        (&json!(false), &json!("02:00:00:00:bb:01"))
    );
    assert!(back["link"].is_string(), "{back}");
    // Where the kernel gives virtual functions to nobody, only who names a driver gets one.
    machine.run(&format!(
        "echo 0 >/sys/bus/pci/devices/{PF}/sriov_drivers_autoprobe"
    ));
    machine.ask(&format!("bind {address} vfio-pci"));
    assert_eq!(machine.ask(&format!("release {address}")), Value::Null);
    machine.ask(&format!("bind {address} igbvf"));
    assert_eq!(function(machine, 0)["driver"], "igbvf");
    machine.run(&format!(
        "echo 1 >/sys/bus/pci/devices/{PF}/sriov_drivers_autoprobe"
    ));
}

/// A function that changes its driver, and one that has no link, is seen by no event of a link.
fn changes_are_told(machine: &Machine) {
    let unbind = format!("echo {} >/sys/bus/pci/drivers/igbvf/unbind", VF[0]);
    assert_eq!(machine.ask(&format!("events '{unbind}'")), true);
    assert_eq!(
        machine.ask("events 'ip link set lo down; ip link set lo up'"),
        false
    );
    let probe = format!("echo {} >/sys/bus/pci/drivers_probe", VF[0]);
    assert_eq!(machine.ask(&format!("events '{probe}'")), true);
    assert_eq!(function(machine, 0)["driver"], "igbvf");
}

fn functions_that_have_gone(machine: &Machine) {
    machine.run(&format!("echo 0 >/sys/bus/pci/devices/{PF}/sriov_numvfs"));
    let why = machine.refusal(&format!("function {}", VF[0]));
    assert!(
        why.contains("no PCI device 0000:01:10.0") && why.contains("sriov_numvfs"),
        "{why}"
    );
    let card = &machine.ask("inventory")[0];
    assert_eq!(
        (&card["enabled"], &card["functions"]),
        (&json!(0), &json!([]))
    );
}
