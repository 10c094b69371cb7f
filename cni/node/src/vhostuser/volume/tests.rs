use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use super::*;

struct Tree {
    home: tempfile::TempDir,
    args: Args,
    pod: Pod,
}

impl Tree {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let args = Args {
            vhost_dir: "/run/v".into(),
            kubelet_root: home.path().join("kubelet"),
            vhost_uid: 107,
            vhost_gid: 108,
        };
        fs::create_dir_all(args.kubelet_root.join("pods")).unwrap();
        let pod = Pod {
            namespace: "vms".into(),
            name: "a".into(),
            uid: "u-1".into(),
        };
        Self { home, args, pod }
    }

    fn volume(&self, volume: Volume) -> PathBuf {
        let path = Pods::new(&self.args.kubelet_root).empty_dir("u-1", volume.name());
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Everything that an ADD does in the volume.
    fn prepare(&self) -> Result<OwnedFd, Error> {
        let (volume, top) = of_pod(&self.args, &self.pod, None)?;
        let directory = directory(&self.args, &self.pod, volume, top)?;
        let socket = Socket::new(&self.args.vhost_dir, &self.pod, "net1", volume)?;
        clear(&directory, &self.pod, &socket)?;
        Ok(directory)
    }

    fn refused(&self, says: &str) {
        let error = self.prepare().unwrap_err();
        assert_eq!(error.code, code::REFUSED, "{error}");
        assert!(
            error.cause.contains(says) && error.cause.contains("vms/a"),
            "{error}"
        );
    }
}

#[test]
fn the_directory_belongs_to_the_machines_user_and_a_stale_socket_goes() {
    let tree = Tree::new();
    let volume = tree.volume(Volume::HookSidecarSockets);
    let opened = tree.prepare().unwrap();
    let made = fs::metadata(volume.join("outboard/net")).unwrap();
    assert_eq!(made.permissions().mode() & 0o7777, 0o770);
    assert_eq!((made.uid(), made.gid()), (107, 108));
    assert_eq!(identity(&opened).unwrap(), (made.dev(), made.ino()));
    let there = existing(&tree.args, &tree.pod, Volume::HookSidecarSockets);
    assert_eq!(there, Some((made.dev(), made.ino())));
    // By its short path: the long one does not fit.
    let stale = volume.join("outboard/net/net1.sock");
    let short = tree.home.path().join("s");
    symlink(volume.join("outboard/net"), &short).unwrap();
    drop(UnixListener::bind(short.join("net1.sock")).unwrap());
    assert!(stale.exists());
    tree.prepare().unwrap();
    assert!(!stale.exists());
}

#[test]
fn a_pod_without_the_volume_is_told_how_to_get_it() {
    let tree = Tree::new();
    tree.refused("no volume hook-sidecar-sockets or shared-dir");
    tree.volume(Volume::SharedDir);
    let (volume, _) = of_pod(&tree.args, &tree.pod, None).unwrap();
    assert_eq!(volume, Volume::SharedDir);
    let asked = of_pod(&tree.args, &tree.pod, Some(Volume::HookSidecarSockets)).unwrap_err();
    assert!(
        asked.remedy.contains("emptyDir named shared-dir"),
        "{asked}"
    );
    tree.volume(Volume::HookSidecarSockets);
    let (volume, _) = of_pod(&tree.args, &tree.pod, None).unwrap();
    assert_eq!(volume, Volume::HookSidecarSockets);
    // Of another plugin's making, and as it is.
    let mode = fs::metadata(tree.volume(Volume::SharedDir)).unwrap();
    assert_eq!(mode.uid(), 0);
    fs::remove_dir_all(&tree.args.kubelet_root).unwrap();
    let error = tree.prepare().unwrap_err();
    assert_eq!(error.code, code::IO_FAILURE);
    assert!(error.remedy.contains("--kubelet-root"), "{error}");
}

#[test]
fn what_a_pod_plants_is_refused_and_left_alone() {
    let tree = Tree::new();
    let volume = tree.volume(Volume::HookSidecarSockets);
    let elsewhere = tree.home.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("net")).unwrap();

    symlink(&elsewhere, volume.join("outboard")).unwrap();
    tree.refused("outboard is a symbolic link");
    fs::remove_file(volume.join("outboard")).unwrap();
    fs::write(volume.join("outboard"), "").unwrap();
    tree.refused("outboard is no directory");
    fs::remove_file(volume.join("outboard")).unwrap();

    fs::create_dir(volume.join("outboard")).unwrap();
    symlink(
        "../../../../../../../elsewhere/net",
        volume.join("outboard/net"),
    )
    .unwrap();
    tree.refused("net is a symbolic link");
    fs::remove_file(volume.join("outboard/net")).unwrap();

    tree.prepare().unwrap();
    let socket = volume.join("outboard/net/net1.sock");
    symlink("/run/containerd/containerd.sock", &socket).unwrap();
    tree.refused("net1.sock in volume hook-sidecar-sockets is a symbolic link");
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "").unwrap();
    tree.refused("is a file");
    fs::remove_file(&socket).unwrap();
    fs::create_dir(&socket).unwrap();
    tree.refused("is a directory");
    // Nothing was done to what the links name.
    assert_eq!(fs::metadata(&elsewhere).unwrap().uid(), 0);
    assert_eq!(fs::read_dir(elsewhere.join("net")).unwrap().count(), 0);
}
