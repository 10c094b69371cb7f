//! Disks that die under a mount: their daemon (here a FUSE export of qemu-storage-daemon, as the `linux` card makes them) is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_health::VolumeHealthEntry;
use proto::csi::v1::{
    NodeGetVolumeHealthRequest, NodeGetVolumeStatsRequest, VolumeHealthErrorType,
};
use tonic::{Code, Request};

use super::request::{block, context, files, publish, refused, stage, unpublish, unstage};
use super::world::{Disk, MIB, Process, World, attach, eventually, out};

/// Serves an image as a file of FUSE.
async fn export(image: &Path, mountpoint: &Path) -> Export {
    let mut command = Command::new("qemu-storage-daemon");
    let blockdev = format!("driver=file,node-name=file,filename={}", image.display());
    let export = format!(
        "type=fuse,id=fuse,node-name=file,writable=on,growable=off,mountpoint={}",
        mountpoint.display()
    );
    let child = command
        .args(["--blockdev", &blockdev, "--export", &export])
        .stdin(Stdio::null())
        .spawn()
        .expect("missing: run `make setup`");
    let mounted = mountpoint.display().to_string();
    eventually("the FUSE export", || {
        fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .contains(&mounted)
            && fs::metadata(mountpoint).is_ok_and(|file| file.len() > 0)
    })
    .await;
    Export {
        daemon: Process(child),
        mountpoint: mountpoint.to_owned(),
    }
}

/// A daemon and its mount. The daemon is killed; the dead mount is then taken away, as outboard-engine does it.
struct Export {
    daemon: Process,
    mountpoint: PathBuf,
}

impl Export {
    /// The daemon hangs, or goes on.
    fn signal(&self, signal: &str) {
        let pid = self.daemon.0.id().to_string();
        out(Command::new("kill").args([signal, &pid]));
    }

    /// The daemon dies, its mount stays.
    fn die(mut self) -> Dead {
        let _ = self.daemon.0.kill();
        let _ = self.daemon.0.wait();
        Dead(std::mem::take(&mut self.mountpoint))
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        let _ = self.daemon.0.kill();
        let _ = self.daemon.0.wait();
        clear(&self.mountpoint);
    }
}

/// A dead mount.
struct Dead(PathBuf);

impl Drop for Dead {
    fn drop(&mut self) {
        clear(&self.0);
    }
}

// The loop devices here do no direct I/O: several writes at once are mixed up by the FUSE export of QEMU 10.0.2 ("fuse: Copy write
// buffer content before polling" came later), and without direct I/O the kernel makes them one after the other.

/// As outboard-engine does before it starts a daemon anew.
fn clear(mountpoint: &Path) {
    let _ = Command::new("umount").arg("-l").arg(mountpoint).output();
}

/// What is wrong with the volume at a path. How full it is is told in any case.
async fn wrong(world: &World, disk: &Disk, path: &str) -> Vec<VolumeHealthEntry> {
    let ask = NodeGetVolumeStatsRequest {
        volume_id: disk.id(),
        volume_path: path.to_owned(),
        staging_target_path: String::new(),
    };
    let stats = world
        .client()
        .node_get_volume_stats(ask)
        .await
        .unwrap()
        .into_inner();
    assert!(!stats.usage.is_empty());
    let ask = NodeGetVolumeHealthRequest {
        volume_id: disk.id(),
        volume_publish_path: path.to_owned(),
        staging_target_path: String::new(),
    };
    let health = world
        .client()
        .node_get_volume_health(ask)
        .await
        .unwrap()
        .into_inner()
        .volume_health
        .unwrap();
    assert_eq!(health.volume_id, disk.id());
    health.health_statuses
}

#[tokio::test]
async fn a_dead_disk_is_told_and_replaced_at_the_next_publish() {
    let world = World::new().await;
    let mut client = world.client();
    for capability in [
        files("ext4", Mode::SingleNodeMultiWriter, &[]),
        block(Mode::SingleNodeMultiWriter),
    ] {
        let mut disk = world.file(32 * MIB);
        let image = world.home().join("image");
        fs::copy(&disk.file, &image).unwrap();
        let daemon = export(&image, &disk.file).await;
        disk.node = Some(attach(&disk.file));
        let mut staged = stage(&world, &disk, capability.clone());
        client.node_stage_volume(staged.clone()).await.unwrap();
        let a = publish(&world, &staged, "a");
        client.node_publish_volume(a.clone()).await.unwrap();
        assert_eq!(wrong(&world, &disk, &a.target_path).await, []);
        let raw = capability == block(Mode::SingleNodeMultiWriter);
        if !raw {
            let data = world.seen(&a.target_path).join("data");
            fs::write(&data, "kept").unwrap();
            fs::File::open(&data).unwrap().sync_all().unwrap();
        }

        let dead = daemon.die();
        let told = wrong(&world, &disk, &a.target_path).await;
        assert_eq!(told[0].status(), VolumeHealthErrorType::Inaccessible);
        assert_eq!(told[0].reason, "DiskDead", "{told:?}");
        // While the card has not repaired it, nothing is mounted over it.
        let result = client
            .node_publish_volume(publish(&world, &staged, "b"))
            .await;
        refused(result, Code::Unavailable, "can't be read");

        // What the card does: the export and a loop device, anew. The old one is held by the dead mounts.
        drop(dead);
        let old = disk.node.take().unwrap();
        let _ = Command::new("losetup").args(["-d", &old]).output();
        let daemon = export(&image, &disk.file).await;
        disk.node = Some(attach(&disk.file));
        staged.publish_context = context(&disk, false);
        let b = publish(&world, &staged, "b");
        client.node_publish_volume(b.clone()).await.unwrap();
        // The path of the pod that saw the death heals at its next publish.
        client.node_publish_volume(a.clone()).await.unwrap();
        for path in [&a.target_path, &b.target_path, &staged.staging_target_path] {
            assert_eq!(wrong(&world, &disk, path).await, [], "{path}");
        }
        if !raw {
            let data = world.seen(&a.target_path).join("data");
            assert_eq!(fs::read_to_string(data).unwrap(), "kept");
        }
        for published in [&a, &b] {
            client
                .node_unpublish_volume(unpublish(published))
                .await
                .unwrap();
        }
        client.node_unstage_volume(unstage(&staged)).await.unwrap();
        assert!(world.mounts().is_empty(), "{:?}", world.mounts());
        disk.detach();
        drop(daemon);
        // The old loop device is free, or already somebody else's.
        let old = old.trim_start_matches("/dev/");
        let file = fs::read_to_string(format!("/sys/block/{old}/loop/backing_file"));
        let file = file.unwrap_or_default();
        assert!(
            !file.contains(&disk.uuid.to_string()) && file.trim() != "/",
            "{file}"
        );
    }
}

#[tokio::test]
async fn a_dead_disk_can_be_left() {
    let world = World::new().await;
    let mut client = world.client();
    let mut disk = world.file(32 * MIB);
    let image = world.home().join("image");
    fs::copy(&disk.file, &image).unwrap();
    let daemon = export(&image, &disk.file).await;
    disk.node = Some(attach(&disk.file));
    let staged = stage(&world, &disk, files("ext4", Mode::SingleNodeWriter, &[]));
    client.node_stage_volume(staged.clone()).await.unwrap();
    let published = publish(&world, &staged, "a");
    client.node_publish_volume(published.clone()).await.unwrap();
    fs::write(
        world.seen(&published.target_path).join("lost"),
        "not synced",
    )
    .unwrap();
    let dead = daemon.die();
    client
        .node_unpublish_volume(unpublish(&published))
        .await
        .unwrap();
    client.node_unstage_volume(unstage(&staged)).await.unwrap();
    assert!(world.mounts().is_empty());
    disk.detach();
    drop(dead);
}

#[tokio::test]
async fn a_disk_that_hangs_is_waited_for_by_one_call_alone() {
    let world = World::new().await;
    let mut client = world.client();
    let mut disk = world.file(32 * MIB);
    let image = world.home().join("image");
    fs::copy(&disk.file, &image).unwrap();
    let daemon = export(&image, &disk.file).await;
    disk.node = Some(attach(&disk.file));
    let staged = stage(&world, &disk, files("ext4", Mode::SingleNodeWriter, &[]));
    let within = |millis| {
        let mut request = Request::new(staged.clone());
        request.set_timeout(Duration::from_millis(millis));
        request
    };
    daemon.signal("-STOP");
    let late = client.node_stage_volume(within(500)).await;
    refused(late, Code::DeadlineExceeded, "it goes on");
    let busy = client.node_stage_volume(within(20_000)).await;
    refused(busy, Code::Aborted, "NodeStageVolume is still under way");
    daemon.signal("-CONT");
    client.node_stage_volume(within(20_000)).await.unwrap();
    daemon.signal("-STOP");
    let told = wrong(&world, &disk, &staged.staging_target_path).await;
    assert!(
        told[0].reason == "DiskSilent" && told[0].message.contains("does not answer"),
        "{told:?}"
    );
    daemon.signal("-CONT");
    assert_eq!(wrong(&world, &disk, &staged.staging_target_path).await, []);
    client.node_unstage_volume(unstage(&staged)).await.unwrap();
    disk.detach();
}
