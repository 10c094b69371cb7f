//! Volumes, snapshots and groups as objects.

use std::collections::BTreeMap;

use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use proto::csi::v1::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

use crate::world::{MIB, World, capability, run, volume};

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "volumes_are_made_once_by_name",
        volumes_are_made_once_by_name,
    ),
    ("snapshots_clones_and_groups", snapshots_clones_and_groups),
    ("lists_come_in_pages", lists_come_in_pages),
    ("capabilities_and_capacity", capabilities_and_capacity),
    ("places", places),
    ("metrics_and_health", metrics_and_health),
    (
        "twenty_equal_calls_at_once_make_one_volume",
        twenty_equal_calls_at_once_make_one_volume,
    ),
];

fn parameters(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn volumes_are_made_once_by_name() {
    run(async {
        let world = World::new().await;
        let mut controller = world.controller();
        let mut wanted = volume("a", 8);
        wanted.parameters = parameters(&[
            ("mkfsOptions", "-m 0"),
            ("iops", "100"),
            ("csi.storage.k8s.io/pvc/name", "data"),
        ]);
        let made = controller
            .create_volume(wanted.clone())
            .await
            .unwrap()
            .into_inner()
            .volume
            .unwrap();
        assert_eq!(made.capacity_bytes, 8 * MIB);
        assert_eq!(made.volume_context, parameters(&[("mkfsOptions", "-m 0")]));
        assert!(made.accessible_topology.is_empty());
        // What the sidecars add does not count.
        wanted
            .parameters
            .insert("csi.storage.k8s.io/pv/name".into(), "pv".into());
        let again = controller
            .create_volume(wanted.clone())
            .await
            .unwrap()
            .into_inner()
            .volume
            .unwrap();
        assert_eq!(again, made);

        let mut others = vec![];
        let mut other = wanted.clone();
        other.capacity_range.as_mut().unwrap().required_bytes = 9 * MIB;
        others.push((other, "size"));
        let mut other = wanted.clone();
        other.parameters.insert("iops".into(), "101".into());
        others.push((other, "parameters.iops"));
        let mut other = wanted.clone();
        other.parameters.remove("mkfsOptions");
        others.push((other, "parameters.mkfsOptions"));
        for (other, differs) in others {
            let error = controller.create_volume(other).await.unwrap_err();
            assert_eq!(error.code(), Code::AlreadyExists, "{error}");
            assert!(error.message().contains(differs), "{error}");
        }
        // A limit changes, and the same call still finds the volume.
        let change = ControllerModifyVolumeRequest {
            volume_id: made.volume_id.clone(),
            mutable_parameters: parameters(&[("iops", "0"), ("readIops", "5")]),
            ..Default::default()
        };
        controller.controller_modify_volume(change).await.unwrap();
        assert_eq!(
            controller
                .create_volume(wanted)
                .await
                .unwrap()
                .into_inner()
                .volume
                .unwrap(),
            made
        );

        // What failed for good leaves nothing: the name is free for something else.
        let huge = CreateVolumeRequest {
            capacity_range: Some(CapacityRange {
                required_bytes: 1 << 60,
                limit_bytes: 0,
            }),
            ..volume("b", 1)
        };
        assert_eq!(
            controller.create_volume(huge).await.unwrap_err().code(),
            Code::OutOfRange
        );
        let mut b = volume("b", 1);
        b.parameters = parameters(&[("blockSize", "4096")]);
        let b = controller
            .create_volume(b)
            .await
            .unwrap()
            .into_inner()
            .volume
            .unwrap();
        for id in [&made.volume_id, &b.volume_id, &b.volume_id] {
            world.delete(id).await.unwrap();
        }
        assert_eq!(world.leaks().await, [""; 0]);
    });
}

fn snapshots_clones_and_groups() {
    run(async {
        let world = World::new().await;
        let mut controller = world.controller();
        let (a, b) = (world.create("a", 4).await, world.create("b", 4).await);
        let snapshot = |name: &str, source: &str| CreateSnapshotRequest {
            name: name.into(),
            source_volume_id: source.into(),
            parameters: parameters(&[("csi.storage.k8s.io/volumesnapshot/name", "x")]),
            ..Default::default()
        };
        let s = controller
            .create_snapshot(snapshot("s", &a))
            .await
            .unwrap()
            .into_inner()
            .snapshot
            .unwrap();
        assert!(s.ready_to_use && s.size_bytes == 4 * MIB && s.source_volume_id == a);
        assert!(s.creation_time.unwrap().seconds > 1_700_000_000);
        let again = controller
            .create_snapshot(snapshot("s", &a))
            .await
            .unwrap()
            .into_inner()
            .snapshot
            .unwrap();
        assert_eq!(again, s);
        let error = controller
            .create_snapshot(snapshot("s", &b))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::AlreadyExists);
        let error = controller
            .create_snapshot(snapshot("t", "fake-vol-id"))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        let get = GetSnapshotRequest {
            snapshot_id: s.snapshot_id.clone(),
            ..Default::default()
        };
        assert_eq!(
            controller
                .get_snapshot(get)
                .await
                .unwrap()
                .into_inner()
                .snapshot
                .unwrap(),
            s
        );

        // Larger than the source, from a snapshot and from a volume.
        let mut volumes = vec![a.clone(), b.clone()];
        for (name, source) in [
            (
                "r",
                Type::Snapshot(SnapshotSource {
                    snapshot_id: s.snapshot_id.clone(),
                }),
            ),
            (
                "c",
                Type::Volume(VolumeSource {
                    volume_id: a.clone(),
                }),
            ),
        ] {
            let mut wanted = volume(name, 6);
            wanted.volume_content_source = Some(VolumeContentSource {
                r#type: Some(source),
            });
            let made = controller
                .create_volume(wanted.clone())
                .await
                .unwrap()
                .into_inner()
                .volume
                .unwrap();
            assert_eq!(
                (made.capacity_bytes, &made.content_source),
                (6 * MIB, &wanted.volume_content_source)
            );
            volumes.push(made.volume_id);
        }

        let group = CreateVolumeGroupSnapshotRequest {
            name: "g".into(),
            source_volume_ids: vec![a.clone(), b.clone()],
            ..Default::default()
        };
        let made = world
            .groups()
            .create_volume_group_snapshot(group.clone())
            .await
            .unwrap();
        let g = made.into_inner().group_snapshot.unwrap();
        assert_eq!(g.snapshots.len(), 2);
        assert!(
            g.snapshots
                .iter()
                .all(|one| one.group_snapshot_id == g.group_snapshot_id)
        );
        let again = world
            .groups()
            .create_volume_group_snapshot(group)
            .await
            .unwrap();
        assert_eq!(again.into_inner().group_snapshot.unwrap(), g);
        let member = g.snapshots[0].snapshot_id.clone();
        let delete = DeleteSnapshotRequest {
            snapshot_id: member.clone(),
            ..Default::default()
        };
        let error = controller.delete_snapshot(delete).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        let mut get = GetVolumeGroupSnapshotRequest {
            group_snapshot_id: g.group_snapshot_id.clone(),
            snapshot_ids: vec![member.clone()],
            ..Default::default()
        };
        let error = world
            .groups()
            .get_volume_group_snapshot(get.clone())
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        get.snapshot_ids = g
            .snapshots
            .iter()
            .rev()
            .map(|one| one.snapshot_id.clone())
            .collect();
        let found = world.groups().get_volume_group_snapshot(get).await.unwrap();
        assert_eq!(found.into_inner().group_snapshot.unwrap(), g);

        // In any order, and twice.
        for id in volumes.iter().chain(&volumes) {
            world.delete(id).await.unwrap();
        }
        for _ in 0..2 {
            let delete = DeleteVolumeGroupSnapshotRequest {
                group_snapshot_id: g.group_snapshot_id.clone(),
                ..Default::default()
            };
            world
                .groups()
                .delete_volume_group_snapshot(delete)
                .await
                .unwrap();
            let delete = DeleteSnapshotRequest {
                snapshot_id: s.snapshot_id.clone(),
                ..Default::default()
            };
            controller.delete_snapshot(delete).await.unwrap();
        }
        assert_eq!(world.leaks().await, [""; 0]);
    });
}

fn lists_come_in_pages() {
    run(async {
        let world = World::new().await;
        let mut controller = world.controller();
        let mut made = Vec::new();
        for n in 0..5 {
            made.push(world.create(&format!("v{n}"), 1).await);
        }
        made.sort();
        let (mut seen, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let request = ListVolumesRequest {
                max_entries: 2,
                starting_token: token,
            };
            let page = controller.list_volumes(request).await.unwrap().into_inner();
            assert!(page.entries.len() <= 2);
            for entry in page.entries {
                let status = entry.status.unwrap();
                assert!(status.published_node_ids.is_empty());
                seen.push(entry.volume.unwrap().volume_id);
            }
            pages += 1;
            token = page.next_token;
            if token.is_empty() {
                break;
            }
        }
        seen.sort();
        assert_eq!((seen, pages), (made.clone(), 3));
        for token in ["invalid-token", "elsewhere/x", "local/x", "/"] {
            let request = ListVolumesRequest {
                max_entries: 0,
                starting_token: token.into(),
            };
            let error = controller.list_volumes(request).await.unwrap_err();
            assert_eq!(error.code(), Code::Aborted, "{token}: {error}");
            let request = ListSnapshotsRequest {
                starting_token: token.into(),
                ..Default::default()
            };
            let error = controller.list_snapshots(request).await.unwrap_err();
            assert_eq!(error.code(), Code::Aborted, "{token}: {error}");
        }
        let snapshot = CreateSnapshotRequest {
            name: "s".into(),
            source_volume_id: made[0].clone(),
            ..Default::default()
        };
        controller.create_snapshot(snapshot).await.unwrap();
        for (id, source, count) in [
            ("", "", 1),
            ("", made[0].as_str(), 1),
            ("", made[1].as_str(), 0),
            ("fake", "", 0),
            ("", "fake", 0),
        ] {
            let request = ListSnapshotsRequest {
                snapshot_id: id.into(),
                source_volume_id: source.into(),
                ..Default::default()
            };
            let found = controller
                .list_snapshots(request)
                .await
                .unwrap()
                .into_inner();
            assert_eq!(found.entries.len(), count, "{id} {source}");
        }
    });
}

fn capabilities_and_capacity() {
    run(async {
        let world = World::new().await;
        let info = world
            .identity()
            .get_plugin_info(GetPluginInfoRequest {})
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (info.name.as_str(), info.vendor_version.is_empty()),
            ("csi.iaas.yusur.io", false)
        );
        let plugin = world
            .identity()
            .get_plugin_capabilities(GetPluginCapabilitiesRequest {})
            .await
            .unwrap();
        assert_eq!(plugin.into_inner().capabilities.len(), 3, "no places here");
        let mut controller = world.controller();
        let request = ControllerGetCapabilitiesRequest {};
        let all = controller
            .controller_get_capabilities(request)
            .await
            .unwrap()
            .into_inner()
            .capabilities;
        assert_eq!(all.len(), 15, "every one there is: {all:?}");
        let capacity = controller
            .get_capacity(GetCapacityRequest::default())
            .await
            .unwrap()
            .into_inner();
        assert!(capacity.available_capacity > 0 && capacity.maximum_volume_size.unwrap() > 0);
        assert_eq!(capacity.minimum_volume_size, Some(4096));
        let impossible = GetCapacityRequest {
            volume_capabilities: vec![capability(false, Mode::MultiNodeMultiWriter)],
            ..Default::default()
        };
        assert_eq!(
            controller
                .get_capacity(impossible)
                .await
                .unwrap()
                .into_inner()
                .available_capacity,
            0
        );

        let id = world.create("a", 1).await;
        for (block, mode, possible) in [
            (false, Mode::SingleNodeSingleWriter, true),
            (false, Mode::MultiNodeReaderOnly, true),
            (false, Mode::MultiNodeMultiWriter, false),
            (true, Mode::MultiNodeMultiWriter, true),
        ] {
            let request = ValidateVolumeCapabilitiesRequest {
                volume_id: id.clone(),
                volume_capabilities: vec![capability(block, mode)],
                ..Default::default()
            };
            let answer = controller
                .validate_volume_capabilities(request)
                .await
                .unwrap()
                .into_inner();
            assert_eq!(answer.confirmed.is_some(), possible, "{mode:?}: {answer:?}");
            assert_eq!(answer.message.is_empty(), possible);
        }
    });
}

fn places() {
    run(async {
        let mut world = World::prepared().await;
        world.write_backends("    topology: {zone: a}\n");
        world.start(&[]).await;
        let mut controller = world.controller();
        let zone = |zone: &str| Topology {
            segments: parameters(&[("zone", zone), ("rack", "1")]),
        };
        let mut wanted = volume("a", 1);
        let require = |requisite: Vec<Topology>| {
            Some(TopologyRequirement {
                preferred: requisite.clone(),
                requisite,
            })
        };
        wanted.accessibility_requirements = require(vec![zone("b")]);
        let error = controller.create_volume(wanted.clone()).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
        wanted.accessibility_requirements = require(vec![zone("b"), zone("a")]);
        let made = controller
            .create_volume(wanted)
            .await
            .unwrap()
            .into_inner()
            .volume
            .unwrap();
        assert_eq!(
            made.accessible_topology,
            [Topology {
                segments: parameters(&[("zone", "a")])
            }]
        );
        for (zone, some) in [(zone("a"), true), (zone("b"), false)] {
            let request = GetCapacityRequest {
                accessible_topology: Some(zone),
                ..Default::default()
            };
            let capacity = controller.get_capacity(request).await.unwrap().into_inner();
            assert_eq!(capacity.available_capacity > 0, some);
        }
        let plugin = world
            .identity()
            .get_plugin_capabilities(GetPluginCapabilitiesRequest {})
            .await
            .unwrap();
        assert_eq!(plugin.into_inner().capabilities.len(), 4);
    });
}

fn twenty_equal_calls_at_once_make_one_volume() {
    run(async {
        let world = World::new().await;
        let calls = (0..20).map(|_| {
            let mut controller = world.controller();
            async move { controller.create_volume(volume("one", 1)).await }
        });
        let mut ids = std::collections::BTreeSet::new();
        for answer in futures::future::join_all(calls).await {
            match answer {
                Ok(answer) => drop(ids.insert(answer.into_inner().volume.unwrap().volume_id)),
                Err(error) => assert_eq!(error.code(), Code::Aborted, "{error}"),
            }
        }
        assert_eq!(ids.len(), 1);
        let all = world
            .controller()
            .list_volumes(ListVolumesRequest::default())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(all.entries.len(), 1);
    });
}

fn metrics_and_health() {
    run(async {
        let mut world = World::prepared().await;
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        world.flags = vec!["--admin-address".into(), address.to_string()];
        world.start(&[]).await;
        let id = world.create("a", 1).await;
        assert!(world.publish(&id, "node-9").await.is_err());
        let get = async |path: &str| {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let metrics = get("/metrics").await;
        for line in [
            r#"_call_duration_seconds_count{method="CreateVolume",code="OK"} 1"#,
            r#"_call_duration_seconds_count{method="ControllerPublishVolume",code="NOT_FOUND"} 1"#,
            "outboard_csi_controller_fenced_total 0",
        ] {
            assert!(metrics.contains(line), "{line} in {metrics}");
        }
        assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
        let mode = std::fs::metadata(world.path("csi/csi.sock")).unwrap();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
            0o600
        );
        assert_eq!(
            std::fs::read_dir(world.path("csi")).unwrap().count(),
            1,
            "nothing beside the socket"
        );
    });
}
