use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;
use crate::gateway::tests::sandbox::{sandboxed, sh};
use crate::vhostuser::volume::identity;

#[test]
fn mount_points_are_read_as_the_kernel_writes_them() {
    let text = b"36 35 98:0 /a /run/x\\040y rw,nosuid,nosymfollow shared:1 - tmpfs none rw\n\
        37 35 98:0 / /mnt\\134z rw - ext4 /dev/sda rw\nshort line\n";
    let point = |path: &str, guarded| Point {
        path: path.into(),
        guarded,
    };
    assert_eq!(
        points(text),
        [point("/run/x y", true), point("/mnt\\z", false)]
    );
}

fn open(path: &str) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}

#[test]
fn a_mount_is_made_found_again_and_removed_and_the_host_has_it_as_it_is() {
    sandboxed(
        "vhostuser::mounts::tests::a_mount_is_made_found_again_and_removed_and_the_host_has_it_as_it_is",
        async {
            // As on a node: /run is shared, and somebody else looks at it from another mount namespace.
            sh("mount --make-rshared /run && mkdir -p /run/pod/net /run/other");
            let mut host = std::process::Command::new("unshare")
                .args(["--mount", "--propagation", "slave", "sleep", "600"])
                .spawn()
                .unwrap();
            let peer = format!("/proc/{}/mountinfo", host.id());
            crate::gateway::tests::sandbox::eventually(
                "the peer has a namespace of its own",
                || {
                    let link =
                        |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
                    link(&host.id().to_string()) != link("self")
                },
            )
            .await;
            let mounts = Mounts::new(Path::new("/run/v"));
            assert!(mounts.observe().unwrap().is_empty());
            let pod = open("/run/pod/net");
            let wanted = Seen {
                directory: Some(identity(&pod).unwrap()),
                guarded: true,
            };
            let make = |directory: &OwnedFd| {
                mounts.stage(directory).unwrap();
                mounts.publish("u-1").unwrap();
                mounts.unstage().unwrap();
            };
            // Cut off after the first step: seen, and in nobody's way.
            mounts.stage(&pod).unwrap();
            assert_eq!(mounts.observe().unwrap()[STAGED], wanted);
            make(&pod);
            make(&pod);
            assert_eq!(
                mounts.observe().unwrap(),
                [("u-1".to_owned(), wanted)].into()
            );
            let seen = std::fs::read_to_string(&peer).unwrap();
            let here: Vec<_> = seen
                .lines()
                .filter(|line| line.contains(" /run/v/u-1 "))
                .collect();
            assert_eq!(here.len(), 1, "{seen}");
            assert!(
                here[0].contains("nosymfollow") && here[0].contains("noexec"),
                "{here:?}"
            );

            // A link in the place of a socket leads nowhere; a socket is reached.
            let _other = UnixListener::bind("/run/other/s.sock").unwrap();
            symlink("/run/other/s.sock", "/run/pod/net/net1.sock").unwrap();
            let why = UnixStream::connect("/run/v/u-1/net1.sock").unwrap_err();
            assert_eq!(why.raw_os_error(), Some(nix::libc::ELOOP), "{why}");
            let _own = UnixListener::bind("/run/pod/net/net2.sock").unwrap();
            UnixStream::connect("/run/v/u-1/net2.sock").unwrap();

            // The pod's directory goes before the mount does.
            sh("rm -r /run/pod && mkdir -p /run/pod/net");
            let anew = open("/run/pod/net");
            assert_ne!(
                mounts.observe().unwrap()["u-1"].directory,
                identity(&anew).ok()
            );
            make(&anew);
            assert_eq!(
                mounts.observe().unwrap()["u-1"].directory,
                identity(&anew).ok()
            );
            mounts.remove("u-1").unwrap();
            mounts.remove("u-1").unwrap();
            sh("mkdir -p /run/v/left /run/v/somebodys/own && touch /run/v/file");
            assert_eq!(
                mounts.observe().unwrap(),
                [("left".to_owned(), Seen::default())].into()
            );
            mounts.remove("left").unwrap();
            assert!(mounts.observe().unwrap().is_empty());
            let seen = std::fs::read_to_string(&peer).unwrap();
            assert!(!seen.contains("/run/v/u-1"), "{seen}");
            host.kill().unwrap();
            host.wait().unwrap();
        },
    );
}
