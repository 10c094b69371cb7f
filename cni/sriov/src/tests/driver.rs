//! What is written to change a driver. That a kernel obeys is seen in `tests/guest`.

use std::fs;

use super::tree::{Tree, address, put};
use crate::{Error, VFIO};

const PF: &str = "0000:03:00.0";

fn read(tree: &Tree, below: &str) -> String {
    fs::read_to_string(tree.path(below)).unwrap()
}

#[test]
fn a_driver_that_is_not_loaded_is_named_with_what_loads_it() {
    let mut tree = Tree::new();
    tree.physical(PF, "p", 1, 8);
    put(&tree.path("bus/pci/drivers_probe"), "");
    let vf = tree.virtual_address(PF, 0);
    let why = tree.sysfs().bind(address(&vf), VFIO).unwrap_err();
    assert!(matches!(why, Error::Driver { .. }));
    assert!(why.to_string().contains("modprobe vfio-pci"), "{why}");
    assert_eq!(
        read(&tree, &format!("devices/{vf}/driver_override")),
        "vfio-pci\n"
    );
    assert_eq!(read(&tree, "bus/pci/drivers/cardvf/unbind"), vf);
    assert_eq!(read(&tree, "bus/pci/drivers_probe"), vf);
}

#[test]
fn without_an_iommu_the_sentence_says_so() {
    let mut tree = Tree::new();
    tree.physical(PF, "p", 1, 8);
    put(&tree.path("bus/pci/drivers_probe"), "");
    put(&tree.path("bus/pci/drivers/vfio-pci/unbind"), "");
    let vf = tree.virtual_address(PF, 0);
    let why = tree.sysfs().bind(address(&vf), VFIO).unwrap_err();
    assert!(why.to_string().contains("intel_iommu=on"), "{why}");
}

#[test]
fn nothing_is_written_for_a_driver_that_has_it() {
    let mut tree = Tree::new();
    tree.physical(PF, "p", 1, 8);
    let vf = tree.virtual_address(PF, 0);
    tree.bind(&vf, VFIO);
    put(
        &tree.path(&format!("devices/{vf}/driver_override")),
        "vfio-pci\n",
    );
    // There is no drivers_probe in this tree: to write it would fail.
    tree.sysfs().bind(address(&vf), VFIO).unwrap();
}

#[test]
fn a_device_that_is_gone_is_named() {
    let tree = Tree::new();
    let why = tree.sysfs().release(address(PF)).unwrap_err();
    assert!(matches!(why, Error::NoDevice(at) if at == address(PF)));
}
