//! A raw volume that a virtual machine's pod has as a vhost-user-blk socket, too.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::storage::Chain;
use e2e::storage::calls::Usage;
use tonic::Code;

use crate::world::{MIB, fill, sh, sum, sweep, two_hosts};

const POD: &str = "8b4d1c8e-7a0e-4f6e-9a65-0e4b8d6f2c11";
const PATIENCE: Duration = Duration::from_secs(30);
const SOCKETS: [(&str, &str); 3] = [
    ("vhostUserBlk", "true"),
    ("vhostUserBlkQueues", "2"),
    ("csi.storage.k8s.io/pvc/name", "data"),
];

/// The volume that KubeVirt gives to a machine's pod, as kubelet makes it.
fn hooks(chain: &Chain, host: usize) -> PathBuf {
    let volume = format!("pods/{POD}/volumes/kubernetes.io~empty-dir/hook-sidecar-sockets");
    let volume = chain.kubelet(host).join(volume);
    std::fs::create_dir_all(&volume).unwrap();
    volume
}

/// Connects by the open directory, since the path is too long, and gives the socket's mode and group.
fn connected(directory: &Path) -> anyhow::Result<(UnixStream, u32, u32)> {
    let opened = File::open(directory)?;
    let path = format!("/proc/self/fd/{}/disk.sock", opened.as_raw_fd());
    let about = std::fs::metadata(&path)?;
    Ok((
        UnixStream::connect(path)?,
        about.mode() & 0o777,
        about.gid(),
    ))
}

fn is_given(chain: &Chain, host: usize, directory: &Path) {
    let seen = chain.seen(host, directory);
    e2e::until("the socket, for the group alone", PATIENCE, || {
        let given = connected(&seen).is_ok_and(|(_, mode, group)| (mode, group) == (0o660, 107));
        Ok(given.then_some(()))
    })
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_volume_has_a_socket_in_a_machines_pod() {
    let chain = two_hosts(true);
    let calls = chain.clients();
    let usage = Usage::block();
    let unnamed = calls.create_with("vm", 32 * MIB, &SOCKETS[..2], usage.clone());
    let unnamed = unnamed.await.unwrap_err();
    assert_eq!(unnamed.code(), Code::InvalidArgument, "{unnamed}");
    let volume = calls.create_with("vm", 32 * MIB, &SOCKETS, usage.clone());
    let volume = volume.await.unwrap();
    assert_eq!(volume.context["claim"], "data");
    let mut size = volume.bytes;
    let mut written = None;
    // On the target's own node the back end's daemon has both exports, elsewhere one of the card's.
    for host in [0, 1] {
        let directory = hooks(&chain, host).join("outboard/blk/data");
        let there = calls.up(&volume, host, POD).await.unwrap();
        assert!(there.context["vhost-user-socket"].ends_with(".vhost"));
        is_given(&chain, host, &directory);
        let taken = chain.seen(host, &directory).join("disk.sock");
        let taken = std::fs::remove_file(taken).unwrap_err();
        assert_eq!(taken.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        if let Some(written) = &written {
            assert_eq!(sum(&chain, host, &there.target, 16), *written);
        }
        let now = fill(&chain, host, &there.target, 16);

        // Snapshots and growth, though no guest has ever used the socket; nobody dies of it.
        let before = chain.daemons(host).unwrap();
        let snapshot = calls.snapshot(&format!("s{host}"), &volume).await.unwrap();
        size += 16 * MIB;
        assert_eq!(calls.expand(&volume, size).await.unwrap(), size);
        calls.node_expand(&volume, host, POD, size).await.unwrap();
        let disk = there.target.display();
        let seen = sh(&chain, host, &format!("blockdev --getsize64 {disk}"));
        assert_eq!(seen, size.to_string());
        let pids = |daemons: &[e2e::storage::Daemon]| -> Vec<_> {
            daemons
                .iter()
                .map(|daemon| (daemon.id.clone(), daemon.pid))
                .collect()
        };
        assert_eq!(pids(&chain.daemons(host).unwrap()), pids(&before));
        is_given(&chain, host, &directory);
        let copy = calls.restore(["c0", "c1"][host], &snapshot, size, usage.clone());
        let copy = copy.await.unwrap();
        let restored = calls.up(&copy, 0, "copy").await.unwrap();
        assert_eq!(sum(&chain, 0, &restored.target, 16), now);
        assert!(!restored.context.contains_key("vhost-user-socket"));
        calls.down(&copy, 0, "copy").await.unwrap();
        calls.delete(&copy).await.unwrap();
        calls.delete_snapshot(&snapshot).await.unwrap();

        // The daemon makes the socket anew, in the directory that the pod has.
        let pid = before[0].pid.unwrap();
        sh(&chain, host, &format!("kill -9 {pid}"));
        e2e::until("another daemon", PATIENCE, || {
            let now = chain.daemons(host)?;
            let other = now.first().and_then(|daemon| daemon.pid);
            Ok(other.filter(|other| *other != pid).map(drop))
        })
        .unwrap();
        is_given(&chain, host, &directory);
        calls.down(&volume, host, POD).await.unwrap();
        assert!(!chain.seen(host, &directory).exists());
        written = Some(now);
    }
    calls.delete(&volume).await.unwrap();
    sweep(&chain, &[]);
}
