//! What is on a disk is kept, unless it is nothing.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use proto::csi::v1::volume_capability::access_mode::Mode;
use tonic::Code;

use super::request::{context, ext4, files, refused, stage, unstage};
use super::world::{Disk, MIB, World};

fn checksum(disk: &Disk) -> Vec<u8> {
    fs::read(&disk.file).unwrap()
}

#[tokio::test]
async fn a_disk_with_anything_on_it_is_never_formatted() {
    let world = World::new().await;
    let mut client = world.client();
    let blank = || world.disk(64 * MIB);
    let byte = |at: u64| {
        let disk = world.file(64 * MIB);
        let file = OpenOptions::new().write(true).open(&disk.file).unwrap();
        file.write_all_at(&[1], at).unwrap();
        disk.attach()
    };
    let table = {
        // An MBR with one partition and its signature.
        let disk = world.file(64 * MIB);
        let file = OpenOptions::new().write(true).open(&disk.file).unwrap();
        let entry = [0, 0, 2, 0, 0x83, 0, 1, 0, 0, 8, 0, 0, 0, 8, 0, 0];
        file.write_all_at(&entry, 446).unwrap();
        file.write_all_at(&[0x55, 0xaa], 510).unwrap();
        disk.attach()
    };
    let other = world
        .disk(64 * MIB)
        .with("mkfs.ext4", &["-q", "-t", "ext2"]);
    let swap = blank().with("mkswap", &["-q"]);
    for (disk, holds) in [
        (&table, "a partition table (dos)"),
        (&other, "ext2"),
        (&swap, "swap"),
        (&byte(0), "byte 0 of it is not zero"),
        (&byte(MIB - 1), "byte 1048575 of it is not zero"),
        (&byte(64 * MIB - 1), "byte 67108863 of it is not zero"),
    ] {
        let before = checksum(disk);
        let result = client.node_stage_volume(stage(&world, disk, ext4())).await;
        refused(result, Code::FailedPrecondition, holds);
        assert!(before == checksum(disk), "{holds}");
    }
    // The other kind of ours, too.
    let xfs = world.disk(320 * MIB).with("mkfs.xfs", &["-q"]);
    let result = client.node_stage_volume(stage(&world, &xfs, ext4())).await;
    refused(
        result,
        Code::FailedPrecondition,
        "holds xfs, and ext4 was asked for",
    );
    // And a blank one that csi-controller does not call new.
    let disk = blank();
    let mut staged = stage(&world, &disk, ext4());
    staged.publish_context = context(&disk, false);
    let result = client.node_stage_volume(staged).await;
    refused(result, Code::FailedPrecondition, "which is not new");
    assert!(world.mounts().is_empty());
    assert!(!world.log().contains("formatted device"));
}

#[tokio::test]
async fn a_disk_that_can_not_be_read_is_never_formatted() {
    let world = World::new().await;
    let mut client = world.client();
    // Shorter than its disk: reads of the rest are I/O errors.
    for (left, code) in [(0, Code::Unavailable), (32 * MIB, Code::Unavailable)] {
        let disk = world.disk(64 * MIB);
        let file = OpenOptions::new().write(true).open(&disk.file).unwrap();
        file.set_len(left).unwrap();
        let result = client.node_stage_volume(stage(&world, &disk, ext4())).await;
        refused(result, code, "can't be read");
        assert_eq!(fs::metadata(&disk.file).unwrap().len(), left);
    }
}

#[tokio::test]
async fn a_disk_that_is_in_use_is_never_formatted() {
    let world = World::new().await;
    let mut client = world.client();
    let disk = world.disk(16 * MIB);
    // As device mapper, a mount or a running mkfs have it.
    let held = world.sh(&format!("blkid -p {} || true", disk.node()));
    assert!(held.is_empty());
    let claim = {
        use std::os::unix::fs::OpenOptionsExt;
        // O_EXCL
        OpenOptions::new()
            .read(true)
            .custom_flags(0o200)
            .open(disk.node())
            .unwrap()
    };
    let result = client.node_stage_volume(stage(&world, &disk, ext4())).await;
    refused(result, Code::Unavailable, "in use by another program");
    drop(claim);
    let staged = stage(&world, &disk, ext4());
    client.node_stage_volume(staged.clone()).await.unwrap();
    client.node_unstage_volume(unstage(&staged)).await.unwrap();
}

#[tokio::test]
async fn xfs_is_made_with_the_users_options_and_a_clone_lives_beside_its_source() {
    let world = World::new().await;
    let mut client = world.client();
    let disk = world.disk(320 * MIB);
    let mut staged = stage(&world, &disk, files("xfs", Mode::SingleNodeWriter, &[]));
    let options = ("mkfsOptions".to_owned(), "-i size=1024".to_owned());
    staged.volume_context = [options].into();
    client.node_stage_volume(staged.clone()).await.unwrap();
    let info = world.sh(&format!("xfs_info {}", staged.staging_target_path));
    assert!(info.contains("isize=1024"), "{info}");
    fs::write(world.seen(&staged.staging_target_path).join("data"), "kept").unwrap();
    client.node_unstage_volume(unstage(&staged)).await.unwrap();

    // The clone is larger: it grows when it is staged.
    let clone = world.file(400 * MIB);
    fs::copy(&disk.file, &clone.file).unwrap();
    OpenOptions::new()
        .write(true)
        .open(&clone.file)
        .unwrap()
        .set_len(400 * MIB)
        .unwrap();
    let clone = clone.attach();
    client.node_stage_volume(staged.clone()).await.unwrap();
    let mut beside = stage(&world, &clone, files("xfs", Mode::SingleNodeWriter, &[]));
    beside.publish_context = context(&clone, false);
    client.node_stage_volume(beside.clone()).await.unwrap();
    let data = world.seen(&beside.staging_target_path).join("data");
    assert_eq!(fs::read_to_string(data).unwrap(), "kept");
    let kib = world.sh(&format!(
        "stat -f -c '%b %S' {}",
        beside.staging_target_path
    ));
    let (blocks, size) = kib.split_once(' ').unwrap();
    let bytes: u64 = blocks.parse::<u64>().unwrap() * size.parse::<u64>().unwrap();
    assert!(bytes > 330 * MIB, "{kib}");
    for staged in [staged, beside] {
        client.node_unstage_volume(unstage(&staged)).await.unwrap();
    }
}

#[tokio::test]
async fn an_ext4_that_needs_a_person_is_left_to_one() {
    let world = World::new().await;
    let mut client = world.client();
    let disk = world
        .disk(16 * MIB)
        .with("mkfs.ext4", &["-q", "-b", "1024"]);
    // The root directory's inode is gone: e2fsck -p does not decide that.
    world.sh(&format!("debugfs -w -R 'clri <2>' {}", disk.node()));
    let staged = stage(&world, &disk, ext4());
    let result = client.node_stage_volume(staged).await;
    refused(result, Code::FailedPrecondition, "by hand");
}
