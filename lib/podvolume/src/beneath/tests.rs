use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;
use crate::{Pods, Refusal};

const OWNER: Owner = Owner {
    uid: 107,
    gid: 108,
    mode: 0o770,
};

struct Tree {
    home: tempfile::TempDir,
    pods: Pods,
}

impl Tree {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("kubelet");
        fs::create_dir_all(root.join("pods")).unwrap();
        let pods = Pods::new(root);
        Self { home, pods }
    }

    fn volume(&self) -> PathBuf {
        let path = self.pods.empty_dir("u-1", "v");
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn make(&self) -> Result<OwnedFd, Error> {
        let top = self.pods.open("u-1", "v")?.unwrap();
        make(top, &self.pods.empty_dir("u-1", "v"), &["a", "b"], OWNER)
    }

    fn refused(&self, at: &str, refusal: Refusal) {
        let error = self.make().unwrap_err();
        assert_eq!(error.refusal, refusal, "{error}");
        assert!(error.path.ends_with(at), "{error}");
    }
}

#[test]
fn directories_are_made_with_owner_and_mode_and_found_again() {
    let tree = Tree::new();
    assert!(tree.pods.open("u-1", "v").unwrap().is_none());
    let volume = tree.volume();
    let open = || tree.pods.open("u-1", "v").unwrap().unwrap();
    assert!(
        descend(open(), &volume, &["a", "b"]).unwrap().is_none(),
        "nothing is made"
    );
    let opened = tree.make().unwrap();
    for path in ["a", "a/b"] {
        let made = fs::metadata(volume.join(path)).unwrap();
        assert_eq!(made.permissions().mode() & 0o7777, 0o770);
        assert_eq!((made.uid(), made.gid()), (107, 108));
    }
    let made = fs::metadata(volume.join("a/b")).unwrap();
    assert_eq!(identity(&opened).unwrap(), (made.dev(), made.ino()));
    let found = descend(open(), &volume, &["a", "b"]).unwrap().unwrap();
    assert_eq!(identity(&found).unwrap(), (made.dev(), made.ino()));
}

#[test]
fn what_is_planted_is_refused_and_left_alone() {
    let tree = Tree::new();
    let volume = tree.volume();
    let elsewhere = tree.home.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("b")).unwrap();
    symlink(&elsewhere, volume.join("a")).unwrap();
    tree.refused("v/a", Refusal::Link);
    fs::remove_file(volume.join("a")).unwrap();
    fs::write(volume.join("a"), "").unwrap();
    tree.refused("v/a", Refusal::NotDirectory);
    fs::remove_file(volume.join("a")).unwrap();
    fs::create_dir(volume.join("a")).unwrap();
    symlink("../../../../../../../elsewhere/b", volume.join("a/b")).unwrap();
    tree.refused("a/b", Refusal::Link);
    let open = tree.pods.open("u-1", "v").unwrap().unwrap();
    let error = descend(open, &volume, &["a", "b"]).unwrap_err();
    assert_eq!(error.refusal, Refusal::Link);
    assert_eq!(fs::metadata(elsewhere.join("b")).unwrap().uid(), 0);
    // The volume itself may be one: the pod's other volumes are kubelet's, but who knows.
    fs::remove_dir_all(&volume).unwrap();
    symlink(&elsewhere, &volume).unwrap();
    let error = tree.pods.open("u-1", "v").unwrap_err();
    assert_eq!(error.refusal, Refusal::Link);
}

#[test]
fn the_way_down_to_a_volume_is_known_as_far_as_it_is_there() {
    let tree = Tree::new();
    let volume = tree.pods.empty_dir("u-1", "v");
    let root = tree.home.path().join("kubelet");
    let mut nearest = vec![tree.pods.nearest("u-1", "v")];
    for name in ["u-1", "volumes", "kubernetes.io~empty-dir", "v"] {
        let last = nearest.last().unwrap();
        fs::create_dir(last.join(name)).unwrap();
        nearest.push(tree.pods.nearest("u-1", "v"));
    }
    let mut above: Vec<_> = volume.ancestors().skip(1).take(4).collect();
    above.reverse();
    assert_eq!(nearest[..4], above);
    assert_eq!(nearest[4], above[3], "the volume itself is the pod's");
    fs::remove_dir_all(&root).unwrap();
    assert_eq!(tree.pods.nearest("u-1", "v"), root);
}

#[test]
fn without_kubelets_directory_that_is_what_is_said() {
    let tree = Tree::new();
    fs::remove_dir_all(tree.home.path().join("kubelet")).unwrap();
    let error = tree.pods.open("u-1", "v").unwrap_err();
    assert_eq!(error.refusal, Refusal::Root(Errno::ENOENT));
    for uid in ["", "..", "a/b", ".staging", "a b", &"a".repeat(65)] {
        assert!(!Pods::is_uid(uid), "{uid}");
    }
    assert!(Pods::is_uid("8b4d1c8e-7a0e-4f6e-9a65-0e4b8d6f2c11"));
}
