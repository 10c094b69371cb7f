//! Trees that look like sysfs.

use std::fs;
use std::path::PathBuf;

use rstest::rstest;
use tempfile::TempDir;

use super::super::super::request::Volume;
use super::*;

const ID: &str = "6f9619ff-8b86-4d01-b42d-00c04fc964ff";
const OTHER: &str = "00000000-8b86-4d01-b42d-00c04fc964ff";

struct Tree(TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for (path, content) in files {
            let path = tree.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{content}\n")).unwrap();
        }
        tree
    }

    fn find(&self, wanted: &Published) -> Result<Found, Miss> {
        find(&Sysfs::at(self.0.path()), wanted)
    }
}

fn wanted(kind: &str, address: &str) -> Published {
    let context = [
        ("uuid", ID),
        ("serial", "SERIAL"),
        ("kind", kind),
        ("address", address),
        ("size", "1048576"),
        ("fresh", "false"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    let volume = Volume::new("x").unwrap();
    Published::new(&context, &volume, &PathBuf::from("/exports")).unwrap()
}

fn on_loop() -> Published {
    wanted("loop", &format!("/exports/{ID}"))
}

fn loop_device<'a>(name: &'a str, file: &'a str, size: &'a str) -> [(String, &'a str); 3] {
    [
        (format!("block/{name}/loop/backing_file"), file),
        (format!("block/{name}/size"), size),
        (format!("block/{name}/dev"), "7:3"),
    ]
}

fn loops_tree(devices: &[(&str, &str, &str)]) -> Tree {
    let files: Vec<(String, &str)> = devices
        .iter()
        .flat_map(|(name, file, size)| loop_device(name, file, size))
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(p, c)| (p.as_str(), *c)).collect();
    Tree::new(&files)
}

#[test]
fn a_loop_device_is_found_by_its_file_among_others_of_its_size() {
    let mine = format!("/exports/{ID}");
    let other = format!("/exports/{OTHER}");
    let elsewhere = format!("/node-2/exports/{ID}");
    let longer = format!("/exports/{ID}.old");
    let tree = loops_tree(&[
        ("loop0", &other, "2048"),
        ("loop1", &elsewhere, "2048"),
        ("loop2", &longer, "2048"),
        ("loop7", &mine, "2048"),
    ]);
    let found = tree.find(&on_loop()).unwrap();
    assert_eq!(found.name, "loop7");
    assert_eq!(found.bytes, 1 << 20);
    assert!(found.proven);
}

#[test]
fn two_loop_devices_over_the_file_are_refused() {
    let mine = format!("/exports/{ID}");
    let tree = loops_tree(&[("loop1", &mine, "2048"), ("loop2", &mine, "2048")]);
    let Err(Miss::Refused(why)) = tree.find(&on_loop()) else {
        panic!("one was taken");
    };
    assert!(why.contains("loop1, loop2"), "{why}");
}

#[test]
fn a_loop_device_that_was_detached_is_waited_for() {
    let mine = format!("/exports/{ID}");
    let tree = loops_tree(&[("loop3", &mine, "2048"), ("loop4", &mine, "2048")]);
    let flag = |name: &str, on: &str| {
        let path = tree.0.path().join(format!("block/{name}/loop/autoclear"));
        fs::write(path, format!("{on}\n")).unwrap();
    };
    flag("loop3", "1");
    flag("loop4", "0");
    let Err(Miss::Absent(why)) = tree.find(&on_loop()) else {
        panic!("it is not waited for")
    };
    assert!(why.contains("loop3") && !why.contains("loop4"), "{why}");
    flag("loop4", "1");
    assert!(matches!(tree.find(&on_loop()), Err(Miss::Refused(_))));
}

#[rstest]
#[case(" (deleted)", "2048", "was deleted")]
#[case("", "0", "has size 0")]
#[case("", "2047", "1048064 bytes")]
#[case("x", "2048", "there is no loop device over")]
fn a_dead_or_small_loop_device_is_not_the_disk(
    #[case] suffix: &str,
    #[case] size: &str,
    #[case] why: &str,
) {
    let file = format!("/exports/{ID}{suffix}");
    let tree = loops_tree(&[("loop1", &file, size)]);
    let Err(Miss::Absent(seen)) = tree.find(&on_loop()) else {
        panic!("it was taken");
    };
    assert!(seen.contains(why), "{seen}");
}

#[test]
fn a_new_loop_device_is_taken_beside_a_dead_one() {
    let mine = format!("/exports/{ID}");
    let tree = loops_tree(&[("loop1", &mine, "0"), ("loop2", &mine, "2048")]);
    assert_eq!(tree.find(&on_loop()).unwrap().name, "loop2");
}

fn nvme_tree(uuid: &str, nguid: &str, serial: &str, address: &str) -> Tree {
    Tree::new(&[
        ("block/nvme0n1/uuid", OTHER),
        ("block/nvme0n1/size", "2048"),
        ("block/nvme0n1/dev", "259:0"),
        ("block/nvme0n1/device/serial", "OTHER"),
        ("block/nvme0n1/device/address", "0000:01:00.0"),
        ("block/nvme1n2/uuid", uuid),
        ("block/nvme1n2/nguid", nguid),
        ("block/nvme1n2/size", "4096"),
        ("block/nvme1n2/dev", "259:1"),
        // sysfs pads with blanks.
        ("block/nvme1n2/device/serial", serial),
        ("block/nvme1n2/device/address", address),
        ("block/nvme1c1n2/hidden", "1"),
        ("block/nvme1c1n2/uuid", uuid),
    ])
}

#[rstest]
#[case(ID, ID, "SERIAL      ", "0000:02:00.0", None)]
#[case("", ID, "SERIAL", "0000:02:00.0", None)]
#[case(
    ID,
    "00000000-0000-0000-0000-000000000000",
    "SERIAL",
    "0000:02:00.0",
    None
)]
#[case(OTHER, OTHER, "SERIAL", "0000:02:00.0", Some("another volume's disk"))]
#[case(ID, OTHER, "SERIAL", "0000:02:00.0", Some("another volume's disk"))]
#[case(ID, ID, "SERIAL", "0000:03:00.0", Some("but not at 0000:02:00.0"))]
#[case(ID, ID, "X", "0000:02:00.0", Some("another serial number"))]
#[case(OTHER, OTHER, "X", "0000:09:00.0", Some("there is no NVMe disk"))]
fn an_nvme_disk_is_found_by_uuid_serial_and_address(
    #[case] uuid: &str,
    #[case] nguid: &str,
    #[case] serial: &str,
    #[case] address: &str,
    #[case] miss: Option<&str>,
) {
    let tree = nvme_tree(uuid, nguid, serial, address);
    match (tree.find(&wanted("nvme", "0000:02:00.0")), miss) {
        (Ok(found), None) => assert_eq!(found.name, "nvme1n2"),
        (Err(Miss::Absent(seen)), Some(why)) => assert!(seen.contains(why), "{seen}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_multipath_nvme_disk_is_found_behind_any_of_its_controllers() {
    let tree = Tree::new(&[
        ("block/nvme0n1/uuid", ID),
        ("block/nvme0n1/size", "2048"),
        ("block/nvme0n1/dev", "259:0"),
        ("block/nvme0n1/device/serial", "SERIAL"),
        ("block/nvme0n1/device/nvme0/address", "0000:01:00.0"),
        ("block/nvme0n1/device/nvme1/address", "0000:02:00.0"),
    ]);
    assert!(tree.find(&wanted("nvme", "0000:02:00.0")).is_ok());
}

#[rstest]
#[case("SERIAL", Ok(true))]
#[case("vhost_user_blk", Ok(false))]
#[case("", Ok(false))]
#[case("FOREIGN", Err("another volume's disk"))]
fn a_virtio_disk_is_found_by_address_and_proven_by_its_serial(
    #[case] serial: &str,
    #[case] expected: Result<bool, &str>,
) {
    let tree = Tree::new(&[
        ("bus/pci/devices/0000:00:05.0/virtio3/block/vdb/x", ""),
        ("block/vdb/serial", serial),
        ("block/vdb/size", "2048"),
        ("block/vdb/dev", "254:16"),
    ]);
    match (tree.find(&wanted("virtio-blk", "0000:00:05.0")), expected) {
        (Ok(found), Ok(proven)) => assert_eq!(found.proven, proven),
        (Err(Miss::Absent(seen)), Err(why)) => assert!(seen.contains(why), "{seen}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_disk_says_which_volume_it_is() {
    let file = format!("/exports/{ID} (deleted)");
    let pod = format!("/var/lib/kubelet/publish/{ID}");
    let tree = loops_tree(&[
        ("loop1", &file, "0"),
        ("loop2", "/", "0"),
        ("loop3", &pod, "8"),
    ]);
    let sysfs = Sysfs::at(tree.0.path());
    let exports = Path::new("/exports");
    let uuid = uuid_of(&sysfs, exports, "loop1").unwrap();
    assert_eq!(uuid.to_string(), ID);
    assert_eq!(uuid_of(&sysfs, exports, "loop2"), None);
    assert_eq!(uuid_of(&sysfs, exports, "loop3"), None);
    assert_eq!(disks_of(&sysfs, exports, uuid).len(), 1);
}
