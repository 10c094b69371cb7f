//! The host's side.

use super::tree::{Tree, address, put};
use crate::{Error, Eswitch, VFIO};

const PF: &str = "0000:03:00.0";

fn host() -> Tree {
    let mut tree = Tree::new();
    tree.physical(PF, "ens1f0", 3, 8);
    tree.physical("0000:03:00.1", "ens1f1", 0, 8);
    // No card: a disk with SR-IOV, and a card without.
    let disk = tree.device("0000:04:00.0", "0x010802");
    put(&disk.join("sriov_totalvfs"), "4\n");
    tree.device("0000:05:00.0", "0x020000");
    tree
}

#[test]
fn cards_are_network_devices_that_can_have_virtual_functions() {
    let found = host().sysfs().physical_functions().unwrap();
    let said: Vec<_> = found
        .iter()
        .map(|f| {
            (
                f.address.to_string(),
                f.number,
                f.link.as_deref(),
                f.total,
                f.enabled,
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            (PF.to_owned(), 0, Some("ens1f0"), 8, 3),
            ("0000:03:00.1".to_owned(), 1, Some("ens1f1"), 8, 0)
        ]
    );
    assert_eq!(found[0].driver.as_deref(), Some("card"));
}

#[test]
fn a_card_has_two_names() {
    let sysfs = host().sysfs();
    // The tree goes with the host: it is kept for both.
    let tree = host();
    let by_link = tree.sysfs().physical("ens1f0").unwrap();
    assert_eq!(tree.sysfs().physical(PF).unwrap(), by_link);
    assert!(matches!(sysfs.physical("ens1f0"), Err(Error::NoLink(_))));
}

#[test]
fn what_is_no_card_is_refused_with_its_name() {
    let tree = host();
    let sysfs = tree.sysfs();
    let why = |name: &str| sysfs.physical(name).unwrap_err().to_string();
    assert!(why("ens9").contains("no network link ens9"));
    assert!(why("../net/ens1f0").contains("no network link"));
    assert!(why("bonding_masters").contains("no network link"));
    assert!(why("lo").contains("lo is none of a PCI device"));
    assert!(why("0000:09:00.0").contains("no PCI device 0000:09:00.0"));
    assert!(why("0000:05:00.0").contains("sriov_numvfs"));
}

#[test]
fn virtual_functions_are_in_the_order_of_their_numbers() {
    let mut tree = Tree::new();
    tree.physical(PF, "p", 12, 16);
    let sysfs = tree.sysfs();
    let found = sysfs.virtual_functions(address(PF)).unwrap();
    let numbers: Vec<u32> = found.iter().map(|f| f.number).collect();
    assert_eq!(numbers, (0..12).collect::<Vec<_>>());
    assert_eq!(found[11].address, address("0000:03:02.3"));
    assert_eq!(found[2].link.as_deref(), Some("pv2"));
    assert_eq!(found[2].mac.as_deref(), Some("02:00:00:00:00:04"));
    assert_eq!(found[2].driver.as_deref(), Some("cardvf"));
    assert!(!found[2].is_vfio());
}

#[test]
fn a_function_is_found_by_its_address_wherever_its_link_is() {
    let tree = host();
    let sysfs = tree.sysfs();
    let vf = tree.virtual_address(PF, 1);
    let here = sysfs.virtual_at(address(&vf)).unwrap();
    assert_eq!((here.number, here.physical), (1, address(PF)));
    assert_eq!(here.link.as_deref(), Some("ens1f0v1"));
    tree.leave(&vf, "ens1f0v1");
    let away = sysfs.virtual_at(address(&vf)).unwrap();
    assert_eq!((away.number, away.link, away.mac), (1, None, None));
    assert_eq!(sysfs.virtual_functions(address(PF)).unwrap().len(), 3);
}

#[test]
fn what_is_no_virtual_function_says_so() {
    let tree = host();
    let sysfs = tree.sysfs();
    assert!(matches!(
        sysfs.virtual_at(address(PF)),
        Err(Error::NotVirtual(_))
    ));
    assert!(matches!(
        sysfs.virtual_at(address("0000:03:09.0")),
        Err(Error::NoDevice(_))
    ));
}

#[test]
fn in_switchdev_a_card_still_has_its_own_link() {
    let mut tree = host();
    // Before the uplink in the order of names.
    tree.port(PF, "aaa", "5eed", "pf0vf0");
    tree.port("0000:03:00.1", "zzz", "5eee", "p1");
    let sysfs = tree.sysfs();
    let link = |pf: &str| sysfs.physical(pf).unwrap().link;
    assert_eq!(link(PF).as_deref(), Some("ens1f0"));
    assert_eq!(
        sysfs.eswitch(address(PF), None).unwrap(),
        Eswitch::Switchdev
    );
}

#[test]
fn without_a_switch_the_mode_is_legacy() {
    let tree = host();
    let mode = tree.sysfs().eswitch(address(PF), None).unwrap();
    assert_eq!(
        (mode, mode.to_string().as_str()),
        (Eswitch::Legacy, "legacy")
    );
}

#[test]
fn a_function_of_a_vm_is_one_of_the_inventory() {
    let tree = host();
    let vf = tree.virtual_address(PF, 2);
    tree.leave(&vf, "ens1f0v2");
    tree.bind(&vf, VFIO);
    let found = tree.sysfs().virtual_at(address(&vf)).unwrap();
    assert!(found.is_vfio() && found.link.is_none());
}

#[test]
fn a_number_that_is_none_is_named_with_its_file() {
    let tree = host();
    put(
        &tree.path(&format!("devices/{PF}/sriov_totalvfs")),
        "many\n",
    );
    let why = tree.sysfs().physical(PF).unwrap_err().to_string();
    assert!(
        why.contains("sriov_totalvfs") && why.contains("many"),
        "{why}"
    );
}

#[test]
fn the_cards_of_a_host_have_a_number_each() {
    let mut tree = host();
    let numbers = |tree: &Tree, chosen: &[&str]| {
        let chosen: Vec<String> = chosen.iter().map(|name| (*name).into()).collect();
        let cards = tree.sysfs().cards(&chosen)?;
        Ok::<_, Error>(cards.iter().map(|card| card.number).collect::<Vec<_>>())
    };
    // One of them has no functions, and is the pods' only if it is named.
    assert_eq!(numbers(&tree, &[]).unwrap(), [0]);
    assert_eq!(numbers(&tree, &["ens1f1", PF, "ens1f0"]).unwrap(), [0, 1]);
    tree.physical("0000:83:00.0", "ens2", 1, 8);
    let why = numbers(&tree, &[]).unwrap_err().to_string();
    assert!(
        why.contains(PF) && why.contains("0000:83:00.0") && why.contains("--pf"),
        "{why}"
    );
    assert_eq!(numbers(&tree, &["ens2"]).unwrap(), [0]);
    assert!(matches!(numbers(&tree, &["ens7"]), Err(Error::NoLink(_))));
}

#[test]
fn a_function_is_found_by_its_numbers() {
    let tree = host();
    let sysfs = tree.sysfs();
    let found = sysfs.virtual_number(address(PF), 2).unwrap().unwrap();
    assert_eq!(found, sysfs.virtual_functions(address(PF)).unwrap()[2]);
    assert_eq!(sysfs.virtual_number(address(PF), 3).unwrap(), None);
}
