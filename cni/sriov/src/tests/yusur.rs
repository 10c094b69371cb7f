//! Cards that say in `hw/plat_name` what they are.

use super::tree::{Tree, address, put};
use crate::Error;

const PF: &str = "0000:01:00.0";
const OTHER: &str = "0000:81:00.0";

fn say_it(tree: &Tree, device: &str) {
    put(
        &tree.path(&format!("devices/{device}/hw/plat_name")),
        "k2-smart-nic\n",
    );
}

/// A card with two virtual functions.
fn with_card(tree: &mut Tree, pf: &str, name: &str) {
    tree.physical(pf, name, 2, 8);
    say_it(tree, pf);
    say_it(tree, &tree.virtual_address(pf, 0));
}

#[test]
fn a_card_is_known_by_its_platform_and_its_functions_are_counted() {
    let mut tree = Tree::new();
    with_card(&mut tree, PF, "y0");
    tree.physical("0000:02:00.0", "other", 2, 8);
    let sysfs = tree.sysfs();
    let cards = sysfs.yusur_cards(&[]).unwrap();
    assert_eq!(cards.len(), 1);
    assert_eq!(
        (cards[0].address, cards[0].functions),
        (address(PF), Some(2))
    );
    // Its virtual functions say it, too, and are no cards.
    let vf = address(&tree.virtual_address(PF, 0));
    assert!(sysfs.is_yusur(vf).unwrap());
    assert!(!sysfs.is_yusur(address("0000:02:00.0")).unwrap());
    let found = sysfs.yusur_representor(0, 1, &[]).unwrap().unwrap();
    assert_eq!(found.name, "pf0vf1rep");
    assert_eq!(found.devargs, "0000:01:00.0,representor=[1]");
    assert_eq!(sysfs.yusur_representor(0, 2, &[]).unwrap(), None);
    assert_eq!(sysfs.yusur_representor(1, 0, &[]).unwrap(), None);
    assert_eq!(sysfs.yusur_count(&[]).unwrap(), 2);
}

#[test]
fn on_the_cards_own_side_its_links_say_which_functions_there_are() {
    let mut tree = Tree::new();
    tree.device(PF, "0x020000");
    say_it(&tree, PF);
    tree.port(PF, "pf0vf4rep", "", "");
    tree.port(PF, "pf1vf0rep", "", "");
    let sysfs = tree.sysfs();
    let found = sysfs.yusur_representor(0, 4, &[]).unwrap().unwrap();
    assert_eq!(found.devargs, "0000:01:00.0,representor=[4]");
    assert_eq!(sysfs.yusur_representor(0, 0, &[]).unwrap(), None);
    assert_eq!(sysfs.yusur_count(&[]).unwrap(), 1);
}

#[test]
fn two_cards_are_told_by_the_chosen_one() {
    let mut tree = Tree::new();
    with_card(&mut tree, PF, "y0");
    with_card(&mut tree, OTHER, "y1");
    let sysfs = tree.sysfs();
    let why = sysfs.yusur_representor(0, 0, &[]).unwrap_err();
    assert!(matches!(why, Error::Ambiguous { .. }));
    let why = why.to_string();
    assert!(why.contains(PF) && why.contains(OTHER), "{why}");
    for chosen in ["y1", OTHER] {
        let found = sysfs.yusur_representor(0, 0, &[chosen.into()]).unwrap();
        assert_eq!(found.unwrap().devargs, format!("{OTHER},representor=[0]"));
    }
}
