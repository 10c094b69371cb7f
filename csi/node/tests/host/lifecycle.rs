//! Stage, publish, unpublish, unstage: once, twice, out of order, at the same time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::Command;
use std::time::{Duration, Instant};

use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::{
    NodeGetCapabilitiesRequest, NodeGetInfoRequest, NodeGetVolumeHealthRequest,
    NodeGetVolumeStatsRequest,
};
use tonic::{Code, Request};

use super::request::{
    SECRET, block, context, ext4, files, publish, refused, stage, unpublish, unstage,
};
use super::world::{MIB, World, attach, eventually, out};

#[tokio::test]
async fn a_file_system_lives_through_pods_and_calls_that_come_twice() {
    let world = World::new().await;
    let disk = world.disk(64 * MIB);
    let mut client = world.client();
    let mut staged = stage(
        &world,
        &disk,
        files("", Mode::SingleNodeMultiWriter, &["noatime"]),
    );
    for _ in 0..2 {
        client.node_stage_volume(staged.clone()).await.unwrap();
    }
    assert_eq!(world.mounts(), [staged.staging_target_path.as_str()]);
    let first = publish(&world, &staged, "a");
    for _ in 0..2 {
        client.node_publish_volume(first.clone()).await.unwrap();
    }
    fs::write(world.seen(&first.target_path).join("data"), "kept").unwrap();
    let mut second = publish(&world, &staged, "b");
    second.readonly = true;
    client.node_publish_volume(second.clone()).await.unwrap();
    client.node_publish_volume(second.clone()).await.unwrap();
    let seen = world.seen(&second.target_path).join("data");
    assert_eq!(fs::read_to_string(&seen).unwrap(), "kept");
    assert_eq!(
        fs::write(&seen, "x").unwrap_err().kind(),
        std::io::ErrorKind::ReadOnlyFilesystem
    );

    let mut other = first.clone();
    other.readonly = true;
    refused(
        client.node_publish_volume(other).await,
        Code::AlreadyExists,
        "for writing",
    );
    let mut otherwise = staged.clone();
    otherwise.volume_capability = files("", Mode::SingleNodeMultiWriter, &["ro", "noatime"]);
    refused(
        client.node_stage_volume(otherwise).await,
        Code::AlreadyExists,
        "for writing",
    );
    let mut otherwise = staged.clone();
    otherwise.volume_capability = files("xfs", Mode::SingleNodeMultiWriter, &["noatime"]);
    refused(
        client.node_stage_volume(otherwise).await,
        Code::AlreadyExists,
        "as ext4",
    );
    let mut otherwise = staged.clone();
    otherwise.volume_capability = ext4();
    refused(
        client.node_stage_volume(otherwise).await,
        Code::AlreadyExists,
        "noatime",
    );

    let out_of_order = client.node_unstage_volume(unstage(&staged)).await;
    refused(out_of_order, Code::FailedPrecondition, &first.target_path);
    for published in [&first, &second] {
        for _ in 0..2 {
            client
                .node_unpublish_volume(unpublish(published))
                .await
                .unwrap();
        }
        assert!(!fs::exists(&published.target_path).unwrap());
    }
    for _ in 0..2 {
        client.node_unstage_volume(unstage(&staged)).await.unwrap();
    }
    assert!(world.mounts().is_empty());
    // A staging mount that was lost is made again.
    client.node_publish_volume(first.clone()).await.unwrap();
    client
        .node_unpublish_volume(unpublish(&first))
        .await
        .unwrap();
    client.node_unstage_volume(unstage(&staged)).await.unwrap();

    // On the next node, where csi-controller may still believe that it is new.
    client.node_stage_volume(staged.clone()).await.unwrap();
    let data = world.seen(&staged.staging_target_path).join("data");
    assert_eq!(fs::read_to_string(data).unwrap(), "kept");
    client.node_unstage_volume(unstage(&staged)).await.unwrap();

    staged.volume_capability = files("ext4", Mode::SingleNodeReaderOnly, &[]);
    staged.publish_context = context(&disk, false);
    client.node_stage_volume(staged.clone()).await.unwrap();
    let data = world.seen(&staged.staging_target_path).join("data");
    assert!(fs::write(data, "x").is_err());
    client.node_unstage_volume(unstage(&staged)).await.unwrap();
    assert!(!world.log().contains(SECRET));
    assert!(world.log().contains("formatted"));
}

#[tokio::test]
async fn a_raw_disk_is_bound_and_read_from_the_mount_table() {
    let world = World::new().await;
    let disk = world.disk(8 * MIB);
    let mut client = world.client();
    let staged = stage(&world, &disk, block(Mode::MultiNodeMultiWriter));
    let published = publish(&world, &staged, "a");
    for _ in 0..2 {
        client.node_stage_volume(staged.clone()).await.unwrap();
        client.node_publish_volume(published.clone()).await.unwrap();
    }
    let seen = world.seen(&published.target_path);
    assert!(fs::metadata(&seen).unwrap().file_type().is_block_device());
    world.sh(&format!(
        "printf raw | dd of={} conv=fsync status=none",
        published.target_path
    ));
    assert!(fs::read(&disk.file).unwrap().starts_with(b"raw"));

    let mut otherwise = staged.clone();
    otherwise.volume_capability = ext4();
    refused(
        client.node_stage_volume(otherwise).await,
        Code::AlreadyExists,
        "a raw disk",
    );
    let mut read_only = publish(&world, &staged, "b");
    read_only.readonly = true;
    let result = client.node_publish_volume(read_only).await;
    refused(result, Code::FailedPrecondition, "read-only");

    let ask = NodeGetVolumeStatsRequest {
        volume_id: disk.id(),
        volume_path: published.target_path.clone(),
        staging_target_path: staged.staging_target_path.clone(),
    };
    let stats = client
        .node_get_volume_stats(ask)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(stats.usage[0].total, (8 * MIB) as i64);
    // By its path as well as by its id alone.
    for path in [published.target_path.as_str(), ""] {
        let ask = NodeGetVolumeHealthRequest {
            volume_id: disk.id(),
            volume_publish_path: path.to_owned(),
            staging_target_path: String::new(),
        };
        let health = client.node_get_volume_health(ask).await.unwrap();
        let health = health.into_inner().volume_health.unwrap();
        assert_eq!(
            (health.volume_id, health.health_statuses),
            (disk.id(), vec![])
        );
    }

    let early = client.node_unstage_volume(unstage(&staged)).await;
    refused(early, Code::FailedPrecondition, &published.target_path);
    client
        .node_unpublish_volume(unpublish(&published))
        .await
        .unwrap();
    client.node_unstage_volume(unstage(&staged)).await.unwrap();
    assert!(world.mounts().is_empty());
    assert_eq!(
        fs::read_dir(&staged.staging_target_path).unwrap().count(),
        0
    );
    assert!(!fs::exists(&published.target_path).unwrap());
}

#[tokio::test]
async fn two_disks_of_one_size_are_told_apart_when_they_come_in_another_order() {
    let world = World::new().await;
    let mut client = world.client();
    let mut disks = [world.disk(16 * MIB), world.disk(16 * MIB)];
    for disk in &disks {
        let staged = stage(&world, disk, ext4());
        client.node_stage_volume(staged.clone()).await.unwrap();
        let mark = world.seen(&staged.staging_target_path).join("mark");
        fs::write(mark, disk.uuid.to_string()).unwrap();
        client.node_unstage_volume(unstage(&staged)).await.unwrap();
    }
    let before = [disks[0].node().to_owned(), disks[1].node().to_owned()];
    for disk in &mut disks {
        disk.detach();
    }
    // Other tests take loop devices, too: the order is what counts.
    for disk in disks.iter_mut().rev() {
        disk.node = Some(attach(&disk.file));
    }
    for disk in &disks {
        let staged = stage(&world, disk, ext4());
        client.node_stage_volume(staged.clone()).await.unwrap();
        let mark = world.seen(&staged.staging_target_path).join("mark");
        assert_eq!(
            fs::read_to_string(mark).unwrap(),
            disk.uuid.to_string(),
            "{before:?}"
        );
        client.node_unstage_volume(unstage(&staged)).await.unwrap();
    }
}

#[tokio::test]
async fn one_path_is_what_a_single_writer_gets() {
    let world = World::new().await;
    let mut client = world.client();
    for (mode, second) in [
        (Mode::SingleNodeSingleWriter, false),
        (Mode::SingleNodeWriter, false),
        (Mode::SingleNodeMultiWriter, true),
    ] {
        for capability in [files("ext4", mode, &[]), block(mode)] {
            let disk = world.disk(8 * MIB);
            let staged = stage(&world, &disk, capability);
            client.node_stage_volume(staged.clone()).await.unwrap();
            let a = publish(&world, &staged, "a");
            client.node_publish_volume(a.clone()).await.unwrap();
            let b = publish(&world, &staged, "b");
            let result = client.node_publish_volume(b.clone()).await;
            if second {
                result.unwrap();
            } else {
                refused(result, Code::FailedPrecondition, &a.target_path);
            }
            for published in [a, b] {
                client
                    .node_unpublish_volume(unpublish(&published))
                    .await
                    .unwrap();
            }
            client.node_unstage_volume(unstage(&staged)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_disk_that_comes_late_is_waited_for_and_one_that_does_not_is_told() {
    let world = World::new().await;
    let mut client = world.client();
    let mut disk = world.file(16 * MIB);
    let staged = stage(&world, &disk, ext4());
    let mut request = Request::new(staged.clone());
    request.set_timeout(Duration::from_millis(900));
    let began = Instant::now();
    let result = client.node_stage_volume(request).await;
    refused(
        result,
        Code::Unavailable,
        "did not appear in time: there is no loop device over",
    );
    assert!(began.elapsed() < Duration::from_secs(3));

    let waiting = tokio::spawn({
        let (mut client, staged) = (client.clone(), staged.clone());
        async move { client.node_stage_volume(staged).await }
    });
    // The same call meanwhile: it is told to come again.
    let mut again = Request::new(staged.clone());
    again.set_timeout(Duration::from_secs(30));
    let busy = tokio::spawn({
        let mut client = client.clone();
        async move { client.node_stage_volume(again).await }
    });
    eventually("one of the two is told", || {
        busy.is_finished() || waiting.is_finished()
    })
    .await;
    disk.node = Some(attach(&disk.file));
    let results = [waiting.await.unwrap(), busy.await.unwrap()];
    assert!(results.iter().any(Result::is_ok), "{results:?}");
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.code(), Code::Aborted);
        assert!(
            error
                .message()
                .contains("NodeStageVolume is still under way")
        );
    }
    client.node_unstage_volume(unstage(&staged)).await.unwrap();
}

#[tokio::test]
async fn a_volume_is_not_let_go_while_another_namespace_has_it() {
    let world = World::new().await;
    let mut client = world.client();
    let disk = world.disk(16 * MIB);
    let staged = stage(&world, &disk, ext4());
    client.node_stage_volume(staged.clone()).await.unwrap();
    let bystander = world.bystander();
    let copy = format!("/proc/{}/mountinfo", bystander.0.id());
    let here = fs::read_link("/proc/self/ns/mnt").unwrap();
    eventually("the bystander has a copy", || {
        let there = fs::read_link(format!("/proc/{}/ns/mnt", bystander.0.id()));
        let cat = fs::read_to_string(format!("/proc/{}/comm", bystander.0.id()));
        there.is_ok_and(|there| there != here)
            && cat.is_ok_and(|name| name.trim() == "cat")
            && fs::read_to_string(&copy).is_ok_and(|t| t.contains(&staged.staging_target_path))
    })
    .await;
    let pid = bystander.0.id().to_string();
    refused(
        client.node_unstage_volume(unstage(&staged)).await,
        Code::FailedPrecondition,
        &pid,
    );
    assert_eq!(world.mounts().len(), 1);
    // As after a kill between unmount and look: no mount of ours is left, and the disk is in use all the same.
    world.sh(&format!("umount {}", staged.staging_target_path));
    let mut request = Request::new(unstage(&staged));
    request.set_timeout(Duration::from_secs(2));
    let result = client.node_unstage_volume(request).await;
    refused(result, Code::FailedPrecondition, "is still in use");
    drop(bystander);
    client.node_unstage_volume(unstage(&staged)).await.unwrap();
}

#[tokio::test]
async fn a_programs_open_file_keeps_the_volume_and_what_is_foreign_stays() {
    let world = World::new().await;
    let mut client = world.client();
    let disk = world.disk(16 * MIB);
    let staged = stage(&world, &disk, ext4());
    client.node_stage_volume(staged.clone()).await.unwrap();
    let published = publish(&world, &staged, "a");
    client.node_publish_volume(published.clone()).await.unwrap();
    let open = fs::File::create(world.seen(&published.target_path).join("open")).unwrap();
    let result = client.node_unpublish_volume(unpublish(&published)).await;
    refused(result, Code::FailedPrecondition, "is in use");
    drop(open);

    // Another volume's id with this volume's path.
    let other = world.file(MIB);
    let mut wrong = unpublish(&published);
    wrong.volume_id = other.id();
    let result = client.node_unpublish_volume(wrong).await;
    refused(result, Code::FailedPrecondition, "is not volume");
    client
        .node_unpublish_volume(unpublish(&published))
        .await
        .unwrap();

    world.sh(&format!(
        "mkdir {0}; mount -t tmpfs tmpfs {0}",
        published.target_path
    ));
    let result = client.node_unpublish_volume(unpublish(&published)).await;
    refused(result, Code::FailedPrecondition, "no volume of this driver");
    let result = client.node_publish_volume(published.clone()).await;
    refused(result, Code::AlreadyExists, "tmpfs");
    world.sh(&format!(
        "umount {0}; touch {0}/file",
        published.target_path
    ));
    let result = client.node_unpublish_volume(unpublish(&published)).await;
    refused(result, Code::FailedPrecondition, "not empty");
    client.node_unstage_volume(unstage(&staged)).await.unwrap();
}

#[tokio::test]
async fn the_node_says_what_it_is_and_can() {
    let mut world = World::without_program().await;
    world.start(&["--max-volumes", "7"], None).await;
    let mut client = world.client();
    let info = client
        .node_get_info(NodeGetInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (info.node_id.as_str(), info.max_volumes_per_node),
        ("node-1", 7)
    );
    let segments = BTreeMap::from([(api::storage::TOPOLOGY.to_owned(), "node-1".to_owned())]);
    assert_eq!(info.accessible_topology.unwrap().segments, segments);
    let can = client
        .node_get_capabilities(NodeGetCapabilitiesRequest {})
        .await
        .unwrap();
    assert_eq!(can.into_inner().capabilities.len(), 5);
    let mode = fs::metadata(world.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn many_volumes_at_once_do_not_get_into_each_others_way() {
    let world = World::new().await;
    let disks: Vec<_> = (0..20).map(|_| world.disk(16 * MIB)).collect();
    let whole = disks.iter().enumerate().map(|(number, disk)| {
        let mut client = world.client();
        let capability = match number % 2 {
            0 => ext4(),
            _ => block(Mode::SingleNodeMultiWriter),
        };
        let staged = stage(&world, disk, capability);
        let mut published = publish(&world, &staged, "a");
        published.readonly = number % 4 == 0;
        async move {
            client.node_stage_volume(staged.clone()).await.unwrap();
            client.node_publish_volume(published.clone()).await.unwrap();
            client
                .node_unpublish_volume(unpublish(&published))
                .await
                .unwrap();
            client.node_unstage_volume(unstage(&staged)).await.unwrap();
        }
    });
    let mut running = tokio::task::JoinSet::new();
    whole.for_each(|one| {
        running.spawn(one);
    });
    while let Some(one) = running.join_next().await {
        one.unwrap();
    }
    assert!(world.mounts().is_empty(), "{:?}", world.mounts());
}

#[tokio::test]
async fn a_disk_that_can_only_be_read_is_shown_so() {
    let world = World::new().await;
    let mut client = world.client();
    let mut disk = world.disk(16 * MIB).with("mkfs.ext4", &["-q"]);
    // Whoever lists loops has it open for a moment, and it stays as long: that is waited for.
    let looked_at = std::fs::File::open(disk.node()).unwrap();
    disk.detach();
    // Not `blockdev --setro`: the next user of the loop device would have to undo it.
    let mut losetup = Command::new("losetup");
    losetup
        .args(["--find", "--show", "--read-only"])
        .arg(&disk.file);
    disk.node = Some(out(&mut losetup));
    let staged = stage(&world, &disk, ext4());
    let look = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        drop(looked_at);
    };
    let mut other = world.client();
    let (done, ()) = tokio::join!(other.node_stage_volume(staged.clone()), look);
    done.unwrap();
    let mut published = publish(&world, &staged, "a");
    let result = client.node_publish_volume(published.clone()).await;
    refused(result, Code::FailedPrecondition, "for reading alone");
    published.readonly = true;
    client.node_publish_volume(published.clone()).await.unwrap();
    client
        .node_unpublish_volume(unpublish(&published))
        .await
        .unwrap();
    client.node_unstage_volume(unstage(&staged)).await.unwrap();
    for capability in [
        files("ext4", Mode::SingleNodeReaderOnly, &[]),
        files("", Mode::MultiNodeReaderOnly, &[]),
        block(Mode::MultiNodeReaderOnly),
    ] {
        let staged = stage(&world, &disk, capability);
        client.node_stage_volume(staged.clone()).await.unwrap();
        let published = publish(&world, &staged, "a");
        client.node_publish_volume(published.clone()).await.unwrap();
        client
            .node_unpublish_volume(unpublish(&published))
            .await
            .unwrap();
        client.node_unstage_volume(unstage(&staged)).await.unwrap();
    }
}

#[tokio::test]
async fn a_bound_disk_whose_number_went_to_another_volume_is_replaced() {
    let world = World::new().await;
    let mut client = world.client();
    let (ours, other) = (world.disk(8 * MIB), world.disk(8 * MIB));
    world.sh(&format!(
        "printf ours | dd of={} conv=fsync status=none",
        ours.node()
    ));
    let capability = block(Mode::SingleNodeMultiWriter);
    let (staged, others) = (
        stage(&world, &ours, capability.clone()),
        stage(&world, &other, capability),
    );
    client.node_stage_volume(others.clone()).await.unwrap();
    let published = publish(&world, &staged, "a");
    let bind = |path: &str| {
        world.sh(&format!(
            "touch {path}; mount --bind {} {path}",
            other.node()
        ));
    };
    bind(&format!("{}/device", staged.staging_target_path));
    bind(&published.target_path);
    client.node_publish_volume(published.clone()).await.unwrap();
    let read = world.sh(&format!(
        "dd if={} bs=4 count=1 status=none",
        published.target_path
    ));
    assert_eq!(read, "ours");
    bind(&published.target_path);
    client
        .node_unpublish_volume(unpublish(&published))
        .await
        .unwrap();
    bind(&format!("{}/device", staged.staging_target_path));
    client.node_unstage_volume(unstage(&staged)).await.unwrap();
    assert_eq!(
        world.mounts(),
        [format!("{}/device", others.staging_target_path)]
    );
    client.node_unstage_volume(unstage(&others)).await.unwrap();
}
