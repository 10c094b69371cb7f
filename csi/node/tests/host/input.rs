//! Every call with every missing, too long, malformed or contradictory field: the code of the specification and a sentence that
//! begins with the field.

use std::collections::BTreeMap;

use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use proto::csi::v1::{
    CapacityRange, NodeExpandVolumeRequest, NodeGetStorageHealthRequest,
    NodeGetVolumeHealthRequest, NodeGetVolumeStatsRequest, NodePublishVolumeRequest,
    NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, VolumeCapability,
};
use tonic::Code;

use super::request::{block, context, ext4, files, publish, refused, stage};
use super::world::{MIB, World};

const BAD: Code = Code::InvalidArgument;

fn long(length: usize) -> String {
    "x".repeat(length)
}

fn huge() -> BTreeMap<String, String> {
    [("key".to_owned(), long(4096))].into()
}

/// Wrong capabilities, and the field that is told.
fn capabilities() -> Vec<(Option<VolumeCapability>, &'static str)> {
    let without = |part: fn(&mut VolumeCapability)| {
        let mut capability = ext4().unwrap();
        part(&mut capability);
        Some(capability)
    };
    let grouped = without(|c| {
        c.access_type = Some(AccessType::Mount(MountVolume {
            volume_mount_group: "1000".to_owned(),
            ..MountVolume::default()
        }));
    });
    let many = long(4097);
    let writer = Mode::SingleNodeWriter;
    vec![
        (None, "volume_capability is missing"),
        (
            without(|c| c.access_type = None),
            "volume_capability.access_type is missing",
        ),
        (
            without(|c| c.access_mode = None),
            "volume_capability.access_mode is missing",
        ),
        (
            without(|c| c.access_mode = Some(AccessMode { mode: 0 })),
            "volume_capability.access_mode is missing",
        ),
        (
            without(|c| c.access_mode = Some(AccessMode { mode: 77 })),
            "volume_capability.access_mode is missing",
        ),
        (
            grouped,
            "volume_capability.mount.volume_mount_group is not supported",
        ),
        (
            files("btrfs", writer, &[]),
            "volume_capability.mount.fs_type is \"btrfs\"",
        ),
        (
            files(&long(129), writer, &[]),
            "volume_capability.mount.fs_type is",
        ),
        (
            files("ext4", writer, &["bind"]),
            "volume_capability.mount.mount_flags",
        ),
        (
            files("ext4", writer, &["a b"]),
            "volume_capability.mount.mount_flags",
        ),
        (
            files("ext4", writer, &[&many]),
            "volume_capability.mount.mount_flags has 4097 bytes",
        ),
        (
            files("ext4", Mode::MultiNodeMultiWriter, &[]),
            "volume_capability: MULTI_NODE_MULTI_WRITER",
        ),
        (
            files("", Mode::MultiNodeSingleWriter, &[]),
            "volume_capability: MULTI_NODE_SINGLE_WRITER",
        ),
    ]
}

fn changed<T: Clone>(good: &T, change: impl FnOnce(&mut T)) -> T {
    let mut bad = good.clone();
    change(&mut bad);
    bad
}

#[tokio::test]
async fn stage_tells_what_is_wrong() {
    let world = World::new().await;
    let mut client = world.client();
    let disk = world.disk(16 * MIB);
    let good = stage(&world, &disk, ext4());
    type Change = Box<dyn FnOnce(&mut NodeStageVolumeRequest)>;
    let put = |key: &'static str, value: &str| -> Change {
        let value = value.to_owned();
        Box::new(move |r| {
            r.publish_context.insert(key.to_owned(), value);
        })
    };
    let options = |text: &str| -> Change {
        let text = text.to_owned();
        Box::new(move |r| {
            r.volume_context.insert("mkfsOptions".to_owned(), text);
        })
    };
    let mut cases: Vec<(Change, Code, &str)> = vec![
        (
            Box::new(|r| r.volume_id.clear()),
            BAD,
            "volume_id is missing",
        ),
        (
            Box::new(|r| r.volume_id = long(129)),
            BAD,
            "volume_id has 129 bytes",
        ),
        (
            Box::new(|r| r.volume_id = "a\u{7}".to_owned()),
            BAD,
            "volume_id has a control character",
        ),
        (
            Box::new(|r| r.staging_target_path.clear()),
            BAD,
            "staging_target_path is missing",
        ),
        (
            Box::new(|r| r.staging_target_path = long(9)),
            BAD,
            "staging_target_path xxxxxxxxx is relative",
        ),
        (
            Box::new(|r| r.staging_target_path = "/".to_owned()),
            BAD,
            "staging_target_path is the root",
        ),
        (
            Box::new(|r| r.staging_target_path = "/a/../b".to_owned()),
            BAD,
            "staging_target_path /a/../b has",
        ),
        (
            Box::new(|r| r.staging_target_path = format!("/{}", long(4096))),
            BAD,
            "staging_target_path has 4097",
        ),
        (
            Box::new(|r| r.staging_target_path.push_str("-gone")),
            Code::FailedPrecondition,
            "is no directory",
        ),
        (
            Box::new(|r| r.secrets = huge()),
            BAD,
            "secrets has 4099 bytes",
        ),
        (
            Box::new(|r| r.volume_context = huge()),
            BAD,
            "volume_context has 4099 bytes",
        ),
        (
            Box::new(|r| r.publish_context = huge()),
            BAD,
            "publish_context has 4099 bytes",
        ),
        (options("-F"), BAD, "volume_context.mkfsOptions: \"-F\""),
        (
            options("-m /dev/vda"),
            BAD,
            "volume_context.mkfsOptions: \"/dev/vda\"",
        ),
        (put("uuid", "x"), BAD, "publish_context.uuid is malformed"),
        (
            put("uuid", "00000000-0000-0000-0000-000000000001"),
            BAD,
            "publish_context.uuid is 0000",
        ),
        (
            put("serial", &long(21)),
            BAD,
            "publish_context.serial is malformed",
        ),
        (
            put("kind", "scsi"),
            BAD,
            "publish_context.kind is malformed",
        ),
        (put("size", "-1"), BAD, "publish_context.size is malformed"),
        (
            put("fresh", "maybe"),
            BAD,
            "publish_context.fresh is malformed",
        ),
        (
            put("address", "rel"),
            BAD,
            "publish_context.address is malformed",
        ),
        (
            put("kind", "nvme"),
            BAD,
            "publish_context.address is malformed",
        ),
        (
            put("kind", "virtio-blk"),
            BAD,
            "publish_context.address is malformed",
        ),
        (
            put("address", "/dev/vda"),
            Code::FailedPrecondition,
            "publish_context.address is /dev/vda",
        ),
    ];
    for key in ["uuid", "serial", "kind", "address", "size", "fresh"] {
        let gone = Box::new(move |r: &mut NodeStageVolumeRequest| {
            r.publish_context.remove(key);
        });
        cases.push((gone, BAD, "is missing"));
    }
    for (capability, sentence) in capabilities() {
        cases.push((
            Box::new(move |r| r.volume_capability = capability),
            BAD,
            sentence,
        ));
    }
    for (change, code, sentence) in cases {
        refused(
            client.node_stage_volume(changed(&good, change)).await,
            code,
            sentence,
        );
    }
    assert!(world.mounts().is_empty());
    assert!(std::fs::read(&disk.file).unwrap().iter().all(|b| *b == 0));
}

#[tokio::test]
async fn publish_tells_what_is_wrong() {
    let world = World::new().await;
    let mut client = world.client();
    let disk = world.disk(16 * MIB);
    let good = publish(&world, &stage(&world, &disk, ext4()), "a");
    let staging = good.staging_target_path.clone();
    type Change = Box<dyn FnOnce(&mut NodePublishVolumeRequest)>;
    let mut cases: Vec<(Change, Code, &str)> = vec![
        (
            Box::new(|r| r.staging_target_path.push_str("-gone")),
            Code::FailedPrecondition,
            "is no directory",
        ),
        (
            Box::new(|r| r.volume_id.clear()),
            BAD,
            "volume_id is missing",
        ),
        (
            Box::new(|r| r.volume_id = long(129)),
            BAD,
            "volume_id has 129 bytes",
        ),
        (
            Box::new(|r| r.target_path.clear()),
            BAD,
            "target_path is missing",
        ),
        (
            Box::new(|r| r.target_path = "a".to_owned()),
            BAD,
            "target_path a is relative",
        ),
        (
            Box::new(|r| r.target_path = staging),
            BAD,
            "target_path is the staging_target_path",
        ),
        (
            Box::new(|r| r.staging_target_path.clear()),
            Code::FailedPrecondition,
            "staging_target_path is missing",
        ),
        (
            Box::new(|r| r.staging_target_path = "a".to_owned()),
            BAD,
            "staging_target_path a is relative",
        ),
        (
            Box::new(|r| r.secrets = huge()),
            BAD,
            "secrets has 4099 bytes",
        ),
        (
            Box::new(|r| r.volume_context = huge()),
            BAD,
            "volume_context has 4099 bytes",
        ),
        (
            Box::new(|r| r.publish_context.clear()),
            BAD,
            "publish_context.uuid is missing",
        ),
    ];
    for (capability, sentence) in capabilities() {
        cases.push((
            Box::new(move |r| r.volume_capability = capability),
            BAD,
            sentence,
        ));
    }
    for (change, code, sentence) in cases {
        refused(
            client.node_publish_volume(changed(&good, change)).await,
            code,
            sentence,
        );
    }
}

#[tokio::test]
async fn the_other_calls_tell_what_is_wrong() {
    let world = World::new().await;
    let mut client = world.client();
    let unstage = |id: &str, path: &str| NodeUnstageVolumeRequest {
        volume_id: id.to_owned(),
        staging_target_path: path.to_owned(),
    };
    let unpublish = |id: &str, path: &str| NodeUnpublishVolumeRequest {
        volume_id: id.to_owned(),
        target_path: path.to_owned(),
    };
    let stats = |id: &str, path: &str| NodeGetVolumeStatsRequest {
        volume_id: id.to_owned(),
        volume_path: path.to_owned(),
        staging_target_path: String::new(),
    };
    let expand = |id: &str, path: &str| NodeExpandVolumeRequest {
        volume_id: id.to_owned(),
        volume_path: path.to_owned(),
        ..NodeExpandVolumeRequest::default()
    };
    let x = long(129);
    for (id, path, sentence) in [
        ("", "/a", "volume_id is missing"),
        (x.as_str(), "/a", "volume_id has 129 bytes"),
        ("v", "", "path is missing"),
        ("v", "/", "path is the root directory"),
        ("v", "/a/../b", "path /a/../b has"),
    ] {
        refused(
            client.node_unstage_volume(unstage(id, path)).await,
            BAD,
            sentence,
        );
        refused(
            client.node_unpublish_volume(unpublish(id, path)).await,
            BAD,
            sentence,
        );
        refused(
            client.node_get_volume_stats(stats(id, path)).await,
            BAD,
            sentence,
        );
        refused(
            client.node_expand_volume(expand(id, path)).await,
            BAD,
            sentence,
        );
    }
    // Ids and paths that nobody gave: nothing to undo, nothing to look at.
    let nowhere = world.path("nowhere");
    client
        .node_unstage_volume(unstage("fake-vol-id", &nowhere))
        .await
        .unwrap();
    client
        .node_unpublish_volume(unpublish("fake-vol-id", &nowhere))
        .await
        .unwrap();
    let health = |id: &str, path: &str| NodeGetVolumeHealthRequest {
        volume_id: id.to_owned(),
        volume_publish_path: path.to_owned(),
        staging_target_path: path.to_owned(),
    };
    for (id, path, sentence) in [
        ("", "/a", "volume_id is missing"),
        (x.as_str(), "/a", "volume_id has 129 bytes"),
        ("v", "/", "volume_publish_path is the root directory"),
        ("v", "/a/../b", "volume_publish_path /a/../b has"),
    ] {
        let result = client.node_get_volume_health(health(id, path)).await;
        refused(result, BAD, sentence);
    }
    for path in ["some/path", nowhere.as_str(), "/proc", ""] {
        let result = client
            .node_get_volume_health(health("fake-vol-id", path))
            .await;
        refused(result, Code::NotFound, path);
    }
    let storage = NodeGetStorageHealthRequest::default();
    refused(
        client.node_get_storage_health(storage).await,
        Code::Unimplemented,
        "GET_STORAGE_HEALTH",
    );
    for path in ["some/path", nowhere.as_str(), "/proc"] {
        let result = client
            .node_get_volume_stats(stats("fake-vol-id", path))
            .await;
        refused(result, Code::NotFound, path);
        let result = client.node_expand_volume(expand("fake-vol-id", path)).await;
        refused(result, Code::NotFound, path);
    }
    for (required, limit, sentence) in [
        (-1, 0, "capacity_range.required_bytes is -1"),
        (0, -1, "capacity_range.limit_bytes is -1"),
        (2, 1, "capacity_range.limit_bytes is less"),
    ] {
        let mut ask = expand("v", &nowhere);
        ask.capacity_range = Some(CapacityRange {
            required_bytes: required,
            limit_bytes: limit,
        });
        refused(client.node_expand_volume(ask).await, BAD, sentence);
    }
    let mut ask = expand("v", &nowhere);
    ask.secrets = huge();
    refused(
        client.node_expand_volume(ask).await,
        BAD,
        "secrets has 4099 bytes",
    );

    // One volume's id with another one's path; a capability that is another one's.
    let disk = world.disk(16 * MIB);
    let staged = stage(&world, &disk, ext4());
    assert_eq!(staged.publish_context, context(&disk, true));
    client.node_stage_volume(staged.clone()).await.unwrap();
    let path = &staged.staging_target_path;
    let other = world.file(MIB).id();
    refused(
        client.node_get_volume_stats(stats(&other, path)).await,
        Code::NotFound,
        path,
    );
    refused(
        client.node_expand_volume(expand(&other, path)).await,
        Code::NotFound,
        path,
    );
    let result = client.node_unstage_volume(unstage(&other, path)).await;
    refused(result, Code::FailedPrecondition, "is not volume");
    let mut ask = expand(&disk.id(), path);
    ask.volume_capability = block(Mode::SingleNodeWriter);
    refused(
        client.node_expand_volume(ask).await,
        BAD,
        "volume_capability does not fit",
    );
    client
        .node_unstage_volume(unstage(&disk.id(), path))
        .await
        .unwrap();
}
