//! Every call with every missing, too long, malformed or contradictory field: the specification's code, and a sentence
//! that names the field.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessType, MountVolume};
use proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use proto::csi::v1::*;
use tonic::Code::{
    self, Aborted, AlreadyExists, InvalidArgument, NotFound, OutOfRange, ResourceExhausted,
    Unimplemented,
};
use tonic::Status;

use crate::world::{MIB, World, capability, publication, run, volume};

pub(crate) const TESTS: &[(&str, fn())] = &[("bad_input_is_named", bad_input_is_named)];

type Answer<'a> = BoxFuture<'a, Result<(), Status>>;

/// What is expected, and the call.
struct Row<'a>(Code, &'a str, Answer<'a>);

/// Rows of one call: a request that would do, and changes that make it wrong.
macro_rules! rows {
    ($rows:ident, $client:expr, $rpc:ident, $good:expr, [$(($code:expr, $words:expr, $change:expr)),* $(,)?]) => {
        $({
            let mut request = $good;
            fn change<T>(request: &mut T, with: impl FnOnce(&mut T)) { with(request) }
            change(&mut request, $change);
            let mut client = $client;
            $rows.push(Row($code, $words, Box::pin(async move { client.$rpc(request).await.map(drop) })));
        })*
    };
}

fn long() -> String {
    "x".repeat(129)
}

/// A map of more than 4 KiB with a value that must not be repeated.
fn big() -> BTreeMap<String, String> {
    BTreeMap::from([("key".to_owned(), "hunter2".repeat(600))])
}

fn one(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

fn range(required_bytes: i64, limit_bytes: i64) -> Option<CapacityRange> {
    Some(CapacityRange {
        required_bytes,
        limit_bytes,
    })
}

fn mount(with: impl FnOnce(&mut MountVolume)) -> VolumeCapability {
    let mut mount = MountVolume::default();
    with(&mut mount);
    let access_type = Some(AccessType::Mount(mount));
    VolumeCapability {
        access_type,
        ..capability(false, Mode::SingleNodeWriter)
    }
}

/// Wrong capabilities, and what names them.
fn capabilities() -> Vec<(&'static str, VolumeCapability)> {
    let good = || capability(false, Mode::SingleNodeWriter);
    vec![
        (
            "access_mode is missing",
            VolumeCapability {
                access_mode: None,
                ..good()
            },
        ),
        ("access_mode is missing", capability(true, Mode::Unknown)),
        (
            "access_type is missing",
            VolumeCapability {
                access_type: None,
                ..good()
            },
        ),
        (
            "MULTI_NODE_MULTI_WRITER with a file system",
            capability(false, Mode::MultiNodeMultiWriter),
        ),
        (
            "MULTI_NODE_SINGLE_WRITER with a file system",
            capability(false, Mode::MultiNodeSingleWriter),
        ),
        ("fs_type is \"ntfs\"", mount(|m| m.fs_type = "ntfs".into())),
        ("mount.fs_type has 129 bytes", mount(|m| m.fs_type = long())),
        (
            "volume_mount_group is not supported",
            mount(|m| m.volume_mount_group = "1".into()),
        ),
        (
            "mount_flags has 5160 bytes",
            mount(|m| m.mount_flags = vec![long(); 40]),
        ),
    ]
}

fn content(r#type: Option<Type>) -> Option<VolumeContentSource> {
    Some(VolumeContentSource { r#type })
}

fn snapshot_source(id: &str) -> Option<VolumeContentSource> {
    content(Some(Type::Snapshot(SnapshotSource {
        snapshot_id: id.into(),
    })))
}

fn volume_source(id: &str) -> Option<VolumeContentSource> {
    content(Some(Type::Volume(VolumeSource {
        volume_id: id.into(),
    })))
}

const GONE: &str = "v1.local.00000000-0000-0000-0000-000000000000";

fn bad_input_is_named() {
    run(async {
        let world = World::new().await;
        let id = world.create("there", 4).await;
        let mut rows = Vec::new();
        create(&world, &mut rows);
        changes(&world, &id, &mut rows);
        publishing(&world, &id, &mut rows);
        snapshots(&world, &id, &mut rows);
        groups(&world, &id, &mut rows);
        let count = rows.len();
        for Row(code, words, call) in rows {
            let error = call.await.expect_err(words);
            assert_eq!(error.code(), code, "{words}: {error}");
            let sentence = error.message();
            assert!(sentence.contains(words), "{words:?} is not in {sentence:?}");
            assert!(
                !sentence.contains("hunter2") && sentence.len() < 1000,
                "{sentence}"
            );
            assert!(error.details().is_empty());
        }
        assert!(count > 110, "{count} rows");
        assert!(
            !world.controller_log().contains("hunter2"),
            "secrets in the log"
        );
        let all = world
            .controller()
            .list_volumes(ListVolumesRequest::default())
            .await
            .unwrap();
        assert_eq!(
            all.into_inner().entries.len(),
            1,
            "none of it made anything"
        );
    });
}

#[rustfmt::skip]
fn create<'a>(world: &World, rows: &mut Vec<Row<'a>>) {
    let client = || world.controller();
    rows!(rows, client(), create_volume, volume("new", 1), [
        (InvalidArgument, "name is missing", |r| r.name.clear()),
        (InvalidArgument, "name has 129 bytes", |r| r.name = long()),
        (InvalidArgument, "name has control characters", |r| r.name = "a\u{7}".into()),
        (InvalidArgument, "capacity_range.required_bytes is -1", |r| r.capacity_range = range(-1, 0)),
        (InvalidArgument, "capacity_range.limit_bytes is -1", |r| r.capacity_range = range(0, -1)),
        (InvalidArgument, "capacity_range has neither", |r| r.capacity_range = range(0, 0)),
        (InvalidArgument, "less than required_bytes", |r| r.capacity_range = range(2, 1)),
        (OutOfRange, "no multiple of 4096", |r| r.capacity_range = range(MIB + 1, MIB + 2)),
        (OutOfRange, "at most", |r| r.capacity_range = range(i64::MAX, 0)),
        (ResourceExhausted, "may still be promised", |r| r.capacity_range = range(60 << 40, 0)),
        (AlreadyExists, "size", |r| { r.name = "there".into(); r.capacity_range = range(1, 1); }),
        (InvalidArgument, "volume_capabilities is missing", |r| r.volume_capabilities.clear()),
        (InvalidArgument, "volume_capabilities[1].access_type is missing",
            |r| r.volume_capabilities.push(VolumeCapability { access_type: None, ..capability(true, Mode::SingleNodeWriter) })),
        (InvalidArgument, "secrets has 4203 bytes", |r| r.secrets = big()),
        (InvalidArgument, "parameters has 4203 bytes", |r| r.parameters = big()),
        (InvalidArgument, "mutable_parameters has 4203 bytes", |r| r.mutable_parameters = big()),
        (InvalidArgument, "\"colour\" is not a parameter of this driver; allowed: backend, ", |r| r.parameters = one("colour", "red")),
        (InvalidArgument, "is reserved for the sidecars", |r| r.parameters = one("csi.storage.k8s.io/colour", "red")),
        (InvalidArgument, "parameters.backend = \"x\" is not allowed; allowed: local", |r| r.parameters = one("backend", "x")),
        (InvalidArgument, "parameters.blockSize = \"1024\" is not allowed; allowed: 512 or 4096", |r| r.parameters = one("blockSize", "1024")),
        (InvalidArgument, "parameters.iops = \"fast\"", |r| r.parameters = one("iops", "fast")),
        (InvalidArgument, "parameters.reconnectDelaySeconds", |r| r.parameters = one("reconnectDelaySeconds", "-1")),
        (InvalidArgument, "mutable_parameters: \"blockSize\" can't change", |r| r.mutable_parameters = one("blockSize", "512")),
        (InvalidArgument, "mutable_parameters: \"colour\" is not a parameter", |r| r.mutable_parameters = one("colour", "red")),
        (InvalidArgument, "mutable_parameters.readIops = \"\"", |r| r.mutable_parameters = one("readIops", "")),
        (InvalidArgument, "iops and readIops exclude each other",
            |r| { r.parameters = one("iops", "1"); r.mutable_parameters = one("readIops", "1"); }),
        (InvalidArgument, "volume_content_source.type is missing", |r| r.volume_content_source = content(None)),
        (InvalidArgument, "volume_content_source.snapshot.snapshot_id is missing", |r| r.volume_content_source = snapshot_source("")),
        (InvalidArgument, "snapshot_id has 129 bytes", |r| r.volume_content_source = snapshot_source(&long())),
        (NotFound, "\"fake\" is not an id", |r| r.volume_content_source = snapshot_source("fake")),
        (NotFound, "does not exist", |r| r.volume_content_source = snapshot_source(&GONE.replace("v1", "s1"))),
        (NotFound, "no backend", |r| r.volume_content_source = snapshot_source("s1.other.x")),
        (InvalidArgument, "volume_content_source.volume.volume_id is missing", |r| r.volume_content_source = volume_source("")),
        (InvalidArgument, "volume_id has 129 bytes", |r| r.volume_content_source = volume_source(&long())),
        (NotFound, "is not an id", |r| r.volume_content_source = volume_source("fake")),
        (NotFound, "does not exist", |r| r.volume_content_source = volume_source(GONE)),
        (InvalidArgument, "parameters.backend and volume_content_source contradict",
            |r| { r.parameters = one("backend", "other"); r.volume_content_source = volume_source(GONE); }),
        (InvalidArgument, "accessibility_requirements.requisite[0].segments has 4203 bytes",
            |r| r.accessibility_requirements = Some(TopologyRequirement { requisite: vec![Topology { segments: big() }], preferred: vec![] })),
        (InvalidArgument, "accessibility_requirements.preferred[0].segments has 4203 bytes",
            |r| r.accessibility_requirements = Some(TopologyRequirement { preferred: vec![Topology { segments: big() }], requisite: vec![] })),
    ]);
    for (words, one) in capabilities() {
        rows!(rows, client(), create_volume, volume("new", 1), [
            (InvalidArgument, words, |r| r.volume_capabilities = vec![one]),
        ]);
    }
    rows!(rows, client(), delete_volume, DeleteVolumeRequest { volume_id: GONE.into(), ..Default::default() }, [
        (InvalidArgument, "volume_id is missing", |r| r.volume_id.clear()),
        (InvalidArgument, "volume_id has 129 bytes", |r| r.volume_id = long()),
        (InvalidArgument, "secrets has 4203 bytes", |r| r.secrets = big()),
    ]);
    rows!(rows, client(), get_capacity, GetCapacityRequest::default(), [
        (InvalidArgument, "parameters has 4203 bytes", |r| r.parameters = big()),
        (InvalidArgument, "\"colour\" is not a parameter", |r| r.parameters = one("colour", "red")),
        (InvalidArgument, "parameters.backend", |r| r.parameters = one("backend", "x")),
        (InvalidArgument, "volume_capabilities[0].access_mode is missing", |r| r.volume_capabilities = vec![VolumeCapability::default()]),
        (InvalidArgument, "accessible_topology.segments has 4203 bytes", |r| r.accessible_topology = Some(Topology { segments: big() })),
    ]);
    rows!(rows, client(), list_volumes, ListVolumesRequest::default(), [
        (InvalidArgument, "max_entries is -1", |r| r.max_entries = -1),
        (InvalidArgument, "starting_token has 129 bytes", |r| r.starting_token = long()),
        (Aborted, "starting_token \"x\"", |r| r.starting_token = "x".into()),
    ]);
}

#[rustfmt::skip]
fn changes<'a>(world: &World, id: &str, rows: &mut Vec<Row<'a>>) {
    let client = || world.controller();
    rows!(rows, client(), controller_get_volume, ControllerGetVolumeRequest { volume_id: id.into() }, [
        (InvalidArgument, "volume_id is missing", |r| r.volume_id.clear()),
        (InvalidArgument, "volume_id has 129 bytes", |r| r.volume_id = long()),
        (NotFound, "\"fake\" is not an id", |r| r.volume_id = "fake".into()),
        (NotFound, "does not exist", |r| r.volume_id = GONE.into()),
    ]);
    let health = || ControllerGetVolumeHealthRequest { volume_id: id.into(), ..Default::default() };
    rows!(rows, client(), controller_get_volume_health, health(), [
        (InvalidArgument, "volume_id is missing", |r| r.volume_id.clear()),
        (InvalidArgument, "volume_id has 129 bytes", |r| r.volume_id = long()),
        (InvalidArgument, "secrets has 4203 bytes", |r| r.secrets = big()),
        (NotFound, "\"fake\" is not an id", |r| r.volume_id = "fake".into()),
        (NotFound, "does not exist", |r| r.volume_id = GONE.into()),
    ]);
    rows!(rows, client(), controller_list_volume_health, ControllerListVolumeHealthRequest::default(), [
        (Unimplemented, "LIST_VOLUME_HEALTH", |_| ()),
    ]);
    let expand = || ControllerExpandVolumeRequest { volume_id: id.into(), capacity_range: range(MIB, 0), ..Default::default() };
    rows!(rows, client(), controller_expand_volume, expand(), [
        (InvalidArgument, "volume_id is missing", |r| r.volume_id.clear()),
        (InvalidArgument, "volume_id has 129 bytes", |r| r.volume_id = long()),
        (NotFound, "\"fake\" is not an id", |r| r.volume_id = "fake".into()),
        (NotFound, "does not exist", |r| r.volume_id = GONE.into()),
        (InvalidArgument, "capacity_range is missing", |r| r.capacity_range = None),
        (InvalidArgument, "capacity_range has neither", |r| r.capacity_range = range(0, 0)),
        (InvalidArgument, "required_bytes is -5", |r| r.capacity_range = range(-5, 0)),
        (InvalidArgument, "less than required_bytes", |r| r.capacity_range = range(2, 1)),
        (OutOfRange, "never shrink", |r| r.capacity_range = range(1, 1)),
        (InvalidArgument, "secrets has 4203 bytes", |r| r.secrets = big()),
        (InvalidArgument, "volume_capability.access_mode is missing", |r| r.volume_capability = Some(VolumeCapability::default())),
        (InvalidArgument, "with a file system", |r| r.volume_capability = Some(capability(false, Mode::MultiNodeMultiWriter))),
    ]);
    let modify = || ControllerModifyVolumeRequest { volume_id: id.into(), mutable_parameters: one("iops", "1"), ..Default::default() };
    rows!(rows, client(), controller_modify_volume, modify(), [
        (InvalidArgument, "volume_id is missing", |r| r.volume_id.clear()),
        (InvalidArgument, "volume_id has 129 bytes", |r| r.volume_id = long()),
        (NotFound, "\"non-existing-volume-id\" is not an id", |r| r.volume_id = "non-existing-volume-id".into()),
        (NotFound, "does not exist", |r| r.volume_id = GONE.into()),
        (InvalidArgument, "secrets has 4203 bytes", |r| r.secrets = big()),
        (InvalidArgument, "mutable_parameters has 4203 bytes", |r| r.mutable_parameters = big()),
        (InvalidArgument, "\"colour\" is not a parameter of this driver; allowed: iops, ", |r| r.mutable_parameters = one("colour", "red")),
        (InvalidArgument, "mutable_parameters.iops = \"1.5\"", |r| r.mutable_parameters = one("iops", "1.5")),
        (InvalidArgument, "bytesPerSecond and writeBytesPerSecond exclude each other",
            |r| r.mutable_parameters = [one("bytesPerSecond", "1"), one("writeBytesPerSecond", "1")].into_iter().flatten().collect()),
    ]);
    let validate = || ValidateVolumeCapabilitiesRequest {
        volume_id: id.into(),
        volume_capabilities: vec![capability(false, Mode::SingleNodeWriter)],
        ..Default::default()
    };
    rows!(rows, client(), validate_volume_capabilities, validate(), [
        (InvalidArgument, "volume_id is missing", |r| r.volume_id.clear()),
        (InvalidArgument, "volume_id has 129 bytes", |r| r.volume_id = long()),
        (NotFound, "\"fake\" is not an id", |r| r.volume_id = "fake".into()),
        (NotFound, "does not exist", |r| r.volume_id = GONE.into()),
        (InvalidArgument, "volume_capabilities is missing", |r| r.volume_capabilities.clear()),
        (InvalidArgument, "volume_capabilities[0].access_mode is missing", |r| r.volume_capabilities = vec![VolumeCapability::default()]),
        (InvalidArgument, "volume_context has 4203 bytes", |r| r.volume_context = big()),
        (InvalidArgument, "parameters has 4203 bytes", |r| r.parameters = big()),
        (InvalidArgument, "mutable_parameters has 4203 bytes", |r| r.mutable_parameters = big()),
        (InvalidArgument, "secrets has 4203 bytes", |r| r.secrets = big()),
    ]);
}

#[rustfmt::skip]
fn publishing<'a>(world: &World, id: &str, rows: &mut Vec<Row<'a>>) {
    let client = || world.controller();
    rows!(rows, client(), controller_publish_volume, publication(id, "node-1"), [
        (InvalidArgument, "volume_id is missing", |r| r.volume_id.clear()),
        (InvalidArgument, "volume_id has 129 bytes", |r| r.volume_id = long()),
        (NotFound, "\"fake-vol-id\" is not an id", |r| r.volume_id = "fake-vol-id".into()),
        (NotFound, "does not exist", |r| r.volume_id = GONE.into()),
        (InvalidArgument, "node_id is missing", |r| r.node_id.clear()),
        (InvalidArgument, "node_id has 257 bytes", |r| r.node_id = "n".repeat(257)),
        (InvalidArgument, "node_id has control characters", |r| r.node_id = "n\0".into()),
        (NotFound, "node \"fake-node-id\" is not known", |r| r.node_id = "fake-node-id".into()),
        (InvalidArgument, "volume_capability is missing", |r| r.volume_capability = None),
        (InvalidArgument, "secrets has 4203 bytes", |r| r.secrets = big()),
        (InvalidArgument, "volume_context has 4203 bytes", |r| r.volume_context = big()),
        (InvalidArgument, "volume_context.reconnectDelaySeconds is malformed", |r| r.volume_context = one("reconnectDelaySeconds", "x")),
    ]);
    for (words, one) in capabilities() {
        rows!(rows, client(), controller_publish_volume, publication(id, "node-1"), [
            (InvalidArgument, words, |r| r.volume_capability = Some(one)),
        ]);
    }
    let unpublish = || ControllerUnpublishVolumeRequest { volume_id: id.into(), node_id: "node-1".into(), ..Default::default() };
    rows!(rows, client(), controller_unpublish_volume, unpublish(), [
        (InvalidArgument, "volume_id is missing", |r| r.volume_id.clear()),
        (InvalidArgument, "volume_id has 129 bytes", |r| r.volume_id = long()),
        (InvalidArgument, "node_id has 257 bytes", |r| r.node_id = "n".repeat(257)),
        (InvalidArgument, "secrets has 4203 bytes", |r| r.secrets = big()),
    ]);
}

#[rustfmt::skip]
fn snapshots<'a>(world: &World, id: &str, rows: &mut Vec<Row<'a>>) {
    let client = || world.controller();
    let create = || CreateSnapshotRequest { name: "s".into(), source_volume_id: id.into(), ..Default::default() };
    rows!(rows, client(), create_snapshot, create(), [
        (InvalidArgument, "name is missing", |r| r.name.clear()),
        (InvalidArgument, "name has 129 bytes", |r| r.name = long()),
        (InvalidArgument, "name has control characters", |r| r.name = "\u{85}".into()),
        (InvalidArgument, "source_volume_id is missing", |r| r.source_volume_id.clear()),
        (InvalidArgument, "source_volume_id has 129 bytes", |r| r.source_volume_id = long()),
        (NotFound, "\"fake\" is not an id", |r| r.source_volume_id = "fake".into()),
        (NotFound, "does not exist", |r| r.source_volume_id = GONE.into()),
        (InvalidArgument, "secrets has 4203 bytes", |r| r.secrets = big()),
        (InvalidArgument, "parameters has 4203 bytes", |r| r.parameters = big()),
        (InvalidArgument, "\"iops\" can't change", |r| r.parameters = one("iops", "1")),
        (InvalidArgument, "\"colour\" is not a parameter of this driver; allowed: none", |r| r.parameters = one("colour", "red")),
    ]);
    rows!(rows, client(), delete_snapshot, DeleteSnapshotRequest { snapshot_id: "s".into(), ..Default::default() }, [
        (InvalidArgument, "snapshot_id is missing", |r| r.snapshot_id.clear()),
        (InvalidArgument, "snapshot_id has 129 bytes", |r| r.snapshot_id = long()),
        (InvalidArgument, "secrets has 4203 bytes", |r| r.secrets = big()),
    ]);
    rows!(rows, client(), get_snapshot, GetSnapshotRequest { snapshot_id: "s".into(), ..Default::default() }, [
        (InvalidArgument, "snapshot_id is missing", |r| r.snapshot_id.clear()),
        (InvalidArgument, "snapshot_id has 129 bytes", |r| r.snapshot_id = long()),
        (InvalidArgument, "secrets has 4203 bytes", |r| r.secrets = big()),
        (NotFound, "\"s\" is not an id", |_| ()),
        (NotFound, "does not exist", |r| r.snapshot_id = GONE.replace("v1", "s1")),
    ]);
    rows!(rows, client(), list_snapshots, ListSnapshotsRequest::default(), [
        (InvalidArgument, "max_entries is -1", |r| r.max_entries = -1),
        (InvalidArgument, "starting_token has 129 bytes", |r| r.starting_token = long()),
        (Aborted, "starting_token \"x\"", |r| r.starting_token = "x".into()),
        (InvalidArgument, "snapshot_id has 129 bytes", |r| r.snapshot_id = long()),
        (InvalidArgument, "source_volume_id has 129 bytes", |r| r.source_volume_id = long()),
        (InvalidArgument, "secrets has 4203 bytes", |r| r.secrets = big()),
    ]);
}

#[rustfmt::skip]
fn groups<'a>(world: &World, id: &str, rows: &mut Vec<Row<'a>>) {
    let client = || world.groups();
    let create = || CreateVolumeGroupSnapshotRequest { name: "g".into(), source_volume_ids: vec![id.into()], ..Default::default() };
    rows!(rows, client(), create_volume_group_snapshot, create(), [
        (InvalidArgument, "name is missing", |r| r.name.clear()),
        (InvalidArgument, "name has 129 bytes", |r| r.name = long()),
        (InvalidArgument, "source_volume_ids is missing", |r| r.source_volume_ids.clear()),
        (InvalidArgument, "source_volume_ids[1] is missing", |r| r.source_volume_ids.push(String::new())),
        (InvalidArgument, "source_volume_ids[1] has 129 bytes", |r| r.source_volume_ids.push(long())),
        (InvalidArgument, "is there twice", |r| r.source_volume_ids.push(r.source_volume_ids[0].clone())),
        (NotFound, "\"fake\" is not an id", |r| r.source_volume_ids.push("fake".into())),
        (NotFound, "does not exist", |r| r.source_volume_ids.push(GONE.into())),
        (InvalidArgument, "secrets has 4203 bytes", |r| r.secrets = big()),
        (InvalidArgument, "parameters has 4203 bytes", |r| r.parameters = big()),
        (InvalidArgument, "\"colour\" is not a parameter", |r| r.parameters = one("colour", "red")),
    ]);
    let delete = || DeleteVolumeGroupSnapshotRequest { group_snapshot_id: "g".into(), ..Default::default() };
    rows!(rows, client(), delete_volume_group_snapshot, delete(), [
        (InvalidArgument, "group_snapshot_id is missing", |r| r.group_snapshot_id.clear()),
        (InvalidArgument, "group_snapshot_id has 129 bytes", |r| r.group_snapshot_id = long()),
        (InvalidArgument, "snapshot_ids[0] is missing", |r| r.snapshot_ids.push(String::new())),
        (InvalidArgument, "snapshot_ids[0] has 129 bytes", |r| r.snapshot_ids.push(long())),
        (InvalidArgument, "secrets has 4203 bytes", |r| r.secrets = big()),
    ]);
    let get = || GetVolumeGroupSnapshotRequest { group_snapshot_id: "g".into(), ..Default::default() };
    rows!(rows, client(), get_volume_group_snapshot, get(), [
        (InvalidArgument, "group_snapshot_id is missing", |r| r.group_snapshot_id.clear()),
        (InvalidArgument, "group_snapshot_id has 129 bytes", |r| r.group_snapshot_id = long()),
        (InvalidArgument, "snapshot_ids[0] is missing", |r| r.snapshot_ids.push(String::new())),
        (InvalidArgument, "snapshot_ids[0] has 129 bytes", |r| r.snapshot_ids.push(long())),
        (InvalidArgument, "secrets has 4203 bytes", |r| r.secrets = big()),
        (NotFound, "\"g\" is not an id", |_| ()),
        (NotFound, "does not exist", |r| r.group_snapshot_id = GONE.replace("v1", "g1")),
    ]);
}
