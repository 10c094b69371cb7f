//! A sysfs made by hand, of the files that this crate looks at.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::{PciAddress, Sysfs};

pub(super) fn address(text: &str) -> PciAddress {
    text.parse().unwrap()
}

/// The tree, and the directory that it is in.
pub(super) struct Tree {
    dir: tempfile::TempDir,
    links: u32,
}

/// One file in a directory that may not be there yet.
pub(super) fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn link(from: &Path, to: &Path) {
    fs::create_dir_all(from.parent().unwrap()).unwrap();
    symlink(to, from).unwrap();
}

impl Tree {
    pub(super) fn new() -> Self {
        let tree = Self {
            dir: tempfile::tempdir().unwrap(),
            links: 0,
        };
        // What is in a real one, too: a file among the links, a link without a device.
        put(&tree.path("class/net/bonding_masters"), "\n");
        tree.plain_link("lo");
        tree
    }

    fn plain_link(&self, name: &str) {
        put(&self.path(&format!("class/net/{name}/ifindex")), "1\n");
        put(&self.path(&format!("class/net/{name}/phys_switch_id")), "");
    }

    pub(super) fn sysfs(&self) -> Sysfs {
        Sysfs::new(self.dir.path())
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// A PCI device of a class.
    pub(super) fn device(&self, address: &str, class: &str) -> PathBuf {
        let device = self.path(&format!("devices/{address}"));
        put(&device.join("class"), &format!("{class}\n"));
        put(&device.join("driver_override"), "(null)\n");
        link(&self.path(&format!("bus/pci/devices/{address}")), &device);
        device
    }

    /// A physical function with its link and `vfs` of `total`. VFs have the addresses of the next device on its bus.
    pub(super) fn physical(&mut self, address: &str, name: &str, vfs: u32, total: u32) {
        let device = self.device(address, "0x020000");
        put(&device.join("sriov_totalvfs"), &format!("{total}\n"));
        put(&device.join("sriov_numvfs"), &format!("{vfs}\n"));
        self.bind(address, "card");
        self.port(address, name, "", "");
        for number in 0..vfs {
            let vf = self.virtual_address(address, number);
            let of = self.device(&vf, "0x020000");
            link(&of.join("physfn"), Path::new(&format!("../{address}")));
            link(
                &device.join(format!("virtfn{number}")),
                Path::new(&format!("../{vf}")),
            );
            self.bind(&vf, "cardvf");
            self.port(&vf, &format!("{name}v{number}"), "", "");
        }
    }

    pub(super) fn virtual_address(&self, physical: &str, number: u32) -> String {
        let (front, function) = physical.rsplit_once(':').unwrap();
        let device = 1 + u32::from_str_radix(&function[..2], 16).unwrap() + number / 8;
        format!("{front}:{device:02x}.{}", number % 8)
    }

    /// A link of a device; with a switch if `switch` is not empty.
    pub(super) fn port(&mut self, device: &str, name: &str, switch: &str, port: &str) {
        self.links += 1;
        let directory = self.path(&format!("devices/{device}/net/{name}"));
        put(
            &directory.join("ifindex"),
            &format!("{}\n", 100 + self.links),
        );
        put(
            &directory.join("address"),
            &format!("02:00:00:00:00:{:02X}\n", self.links),
        );
        put(&directory.join("phys_switch_id"), &format!("{switch}\n"));
        put(&directory.join("phys_port_name"), &format!("{port}\n"));
        link(
            &directory.join("device"),
            Path::new(&format!("../../../{device}")),
        );
        link(&self.path(&format!("class/net/{name}")), &directory);
    }

    /// Takes a link away, as if it had gone to another namespace.
    pub(super) fn leave(&self, device: &str, name: &str) {
        fs::remove_file(self.path(&format!("class/net/{name}"))).unwrap();
        fs::remove_dir_all(self.path(&format!("devices/{device}/net/{name}"))).unwrap();
    }

    pub(super) fn bind(&self, device: &str, driver: &str) {
        let of = self.path(&format!("devices/{device}/driver"));
        let _ = fs::remove_file(&of);
        let directory = self.path(&format!("bus/pci/drivers/{driver}"));
        put(&directory.join("unbind"), "");
        link(&of, &directory);
    }
}
