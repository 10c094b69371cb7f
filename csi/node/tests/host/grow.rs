//! Volumes that grow.

use std::fs::OpenOptions;
use std::process::Command;
use std::time::Duration;

use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::{CapacityRange, NodeExpandVolumeRequest, NodeGetVolumeStatsRequest};
use tonic::{Code, Request};

use super::request::{block, ext4, files, publish, refused, stage, unpublish, unstage};
use super::world::{Disk, MIB, World, out};

fn enlarge(disk: &Disk, bytes: u64) {
    let file = OpenOptions::new().write(true).open(&disk.file).unwrap();
    file.set_len(bytes).unwrap();
    out(Command::new("losetup").args(["-c", disk.node()]));
}

/// Whether the kernel lets this machine's root grow a mounted ext4.
fn may_resize() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    u64::from_str_radix(set.trim(), 16).unwrap() >> 24 & 1 == 1
}

#[tokio::test]
async fn file_systems_and_raw_disks_grow_while_they_are_used() {
    let world = World::new().await;
    let mut client = world.client();
    for (capability, from, to) in [
        (ext4(), 64 * MIB, 128 * MIB),
        (
            files("xfs", Mode::SingleNodeWriter, &[]),
            320 * MIB,
            400 * MIB,
        ),
        (block(Mode::SingleNodeWriter), 8 * MIB, 16 * MIB),
    ] {
        let disk = world.disk(from);
        let staged = stage(&world, &disk, capability.clone());
        client.node_stage_volume(staged.clone()).await.unwrap();
        let published = publish(&world, &staged, "a");
        client.node_publish_volume(published.clone()).await.unwrap();
        let range = |required: u64, limit: u64| {
            Some(CapacityRange {
                required_bytes: required as i64,
                limit_bytes: limit as i64,
            })
        };
        let ask = NodeExpandVolumeRequest {
            volume_id: disk.id(),
            volume_path: published.target_path.clone(),
            capacity_range: range(to, 0),
            ..NodeExpandVolumeRequest::default()
        };
        let mut early = Request::new(ask.clone());
        early.set_timeout(Duration::from_millis(500));
        refused(
            client.node_expand_volume(early).await,
            Code::Unavailable,
            "has not grown yet",
        );
        let growing = tokio::spawn({
            let (mut client, ask) = (client.clone(), ask.clone());
            async move { client.node_expand_volume(ask).await }
        });
        enlarge(&disk, to);
        let grown = growing.await.unwrap();
        if capability == ext4() && !may_resize() {
            // The kernel does not let anybody here; the next test shows when it grows instead.
            refused(grown, Code::FailedPrecondition, "CAP_SYS_RESOURCE");
            client
                .node_unpublish_volume(unpublish(&published))
                .await
                .unwrap();
            client.node_unstage_volume(unstage(&staged)).await.unwrap();
            continue;
        }
        assert_eq!(grown.unwrap().into_inner().capacity_bytes, to as i64);
        let again = client
            .node_expand_volume(ask.clone())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(again.capacity_bytes, to as i64);
        let mut limited = ask.clone();
        limited.capacity_range = range(from, from);
        refused(
            client.node_expand_volume(limited).await,
            Code::OutOfRange,
            "do not shrink",
        );
        let ask = NodeGetVolumeStatsRequest {
            volume_id: disk.id(),
            volume_path: published.target_path.clone(),
            staging_target_path: String::new(),
        };
        let stats = client
            .node_get_volume_stats(ask)
            .await
            .unwrap()
            .into_inner();
        assert!(stats.usage[0].total > from as i64, "{stats:?}");
        client
            .node_unpublish_volume(unpublish(&published))
            .await
            .unwrap();
        client.node_unstage_volume(unstage(&staged)).await.unwrap();
    }
}

#[tokio::test]
async fn a_disk_that_grew_while_nobody_used_it_grows_at_stage() {
    let world = World::new().await;
    let mut client = world.client();
    let disk = world.disk(64 * MIB);
    let staged = stage(&world, &disk, files("ext4", Mode::SingleNodeWriter, &[]));
    client.node_stage_volume(staged.clone()).await.unwrap();
    client.node_unstage_volume(unstage(&staged)).await.unwrap();
    enlarge(&disk, 128 * MIB);
    client.node_stage_volume(staged.clone()).await.unwrap();
    let ask = NodeGetVolumeStatsRequest {
        volume_id: disk.id(),
        volume_path: staged.staging_target_path.clone(),
        staging_target_path: String::new(),
    };
    let stats = client
        .node_get_volume_stats(ask)
        .await
        .unwrap()
        .into_inner();
    assert!(stats.usage[0].total > (100 * MIB) as i64, "{stats:?}");
    client.node_unstage_volume(unstage(&staged)).await.unwrap();
}
