//! kill -9 between any two steps, and the same calls again.

use std::fs;

use csi_node::host::FAILPOINTS;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::{NodeExpandVolumeRequest, VolumeCapability};
use tonic::Status;

use super::request::{block, files, publish, stage, unpublish, unstage};
use super::world::{Disk, MIB, World};

/// What kubelet does with a volume. `read_only`: the pod may not write.
async fn use_it(
    world: &World,
    disk: &Disk,
    capability: &Option<VolumeCapability>,
    read_only: bool,
) -> Result<(), Status> {
    let mut client = world.client();
    let staged = stage(world, disk, capability.clone());
    client.node_stage_volume(staged.clone()).await?;
    let mut published = publish(world, &staged, "a");
    published.readonly = read_only;
    client.node_publish_volume(published.clone()).await?;
    let ask = NodeExpandVolumeRequest {
        volume_id: disk.id(),
        volume_path: published.target_path.clone(),
        ..NodeExpandVolumeRequest::default()
    };
    client.node_expand_volume(ask).await?;
    Ok(())
}

async fn leave_it(world: &World, disk: &Disk) -> Result<(), Status> {
    let mut client = world.client();
    let staged = stage(world, disk, None);
    let published = publish(world, &staged, "a");
    client.node_unpublish_volume(unpublish(&published)).await?;
    client.node_unstage_volume(unstage(&staged)).await?;
    Ok(())
}

async fn killed_everywhere(capability: Option<VolumeCapability>, read_only: bool, points: &[&str]) {
    let mut world = World::without_program().await;
    let raw = capability == block(Mode::SingleNodeWriter);
    for point in points {
        let disk = world.disk(16 * MIB);
        world.start(&[], Some(point)).await;
        let cut = match use_it(&world, &disk, &capability, read_only).await {
            Ok(()) => leave_it(&world, &disk).await,
            cut => cut,
        };
        assert!(cut.is_err(), "{point} was not reached");
        world.died().await;
        world.start(&[], None).await;
        use_it(&world, &disk, &capability, read_only)
            .await
            .unwrap_or_else(|status| panic!("{point}: {status:?}"));
        if !raw && !read_only {
            let file = world.seen(&world.path(&format!("pods/a/{}/data", disk.id())));
            fs::write(file, point).unwrap();
        }
        leave_it(&world, &disk)
            .await
            .unwrap_or_else(|status| panic!("{point}: {status:?}"));
        assert!(world.mounts().is_empty(), "{point}: {:?}", world.mounts());
        let notes = fs::read_dir(world.home().join("run/formatting")).unwrap();
        assert_eq!(notes.count(), 0, "{point}");
        assert!(!fs::exists(world.path(&format!("pods/a/{}", disk.id()))).unwrap());
    }
}

/// Those have a test of their own; the last one is passed by every volume.
fn of_sockets(point: &str) -> bool {
    [
        "socket::noted",
        "socket::begun",
        "socket::made",
        "socket::bound",
    ]
    .contains(&point)
}

#[tokio::test]
async fn a_file_system_converges_after_a_kill_at_any_step() {
    let capability = files("ext4", Mode::SingleNodeSingleWriter, &[]);
    let mut points = FAILPOINTS.to_vec();
    // Only a mount for reading alone has two halves.
    points.retain(|point| *point != "publish::halfway" && !of_sockets(point));
    killed_everywhere(capability.clone(), false, &points).await;
    let points = ["publish::made", "publish::halfway", "publish::bound"];
    killed_everywhere(capability, true, &points).await;
}

#[tokio::test]
async fn a_raw_disk_converges_after_a_kill_at_any_step() {
    let points: Vec<&str> = FAILPOINTS
        .into_iter()
        .filter(|point| !point.ends_with("ticketed"))
        .filter(|point| !["stage::formatted", "publish::halfway"].contains(point))
        .filter(|point| !of_sockets(point))
        .collect();
    killed_everywhere(block(Mode::SingleNodeWriter), false, &points).await;
}

#[tokio::test]
async fn half_a_mkfs_is_made_anew_only_on_the_disk_where_it_was_begun() {
    let mut world = World::without_program().await;
    let capability = files("ext4", Mode::SingleNodeWriter, &[]);
    for elsewhere in [false, true] {
        let mut disk = world.disk(16 * MIB);
        world.start(&[], Some("stage::ticketed")).await;
        use_it(&world, &disk, &capability, false).await.unwrap_err();
        // What a mkfs leaves that was killed with it: neither empty nor a file system.
        world.sh(&format!(
            "yes half | dd of={} bs=64k count=4 iflag=fullblock status=none",
            disk.node()
        ));
        if elsewhere {
            // It was detached meanwhile: somebody else may have written that.
            disk.detach();
            disk = disk.attach();
        }
        world.start(&[], None).await;
        let result = use_it(&world, &disk, &capability, false).await;
        if elsewhere {
            let status = result.unwrap_err();
            assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status:?}");
        } else {
            result.unwrap();
        }
        leave_it(&world, &disk).await.unwrap();
    }
}
