//! Volumes at hosts.

use std::io::{Read, Seek, SeekFrom, Write};

use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::*;
use tonic::Code;

use crate::dpu::{Dpu, Pems};
use crate::world::{MIB, World, capability, publication, run, volume};

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "a_published_volume_is_a_disk_and_fresh_once",
        a_published_volume_is_a_disk_and_fresh_once,
    ),
    (
        "a_volume_that_was_never_written_to_stays_fresh",
        a_volume_that_was_never_written_to_stays_fresh,
    ),
    (
        "one_host_at_a_time_unless_raw_and_shared",
        one_host_at_a_time_unless_raw_and_shared,
    ),
    (
        "a_volume_has_a_socket_where_its_class_says_so",
        a_volume_has_a_socket_where_its_class_says_so,
    ),
    ("a_node_has_limits", a_node_has_limits),
    (
        "many_at_once_do_not_wait_for_each_other",
        many_at_once_do_not_wait_for_each_other,
    ),
    (
        "refusals_keep_their_code_and_leave_nothing",
        refusals_keep_their_code_and_leave_nothing,
    ),
    (
        "a_host_whose_dpu_is_away_is_fenced",
        a_host_whose_dpu_is_away_is_fenced,
    ),
    (
        "a_node_that_is_out_of_service_is_not_waited_for",
        a_node_that_is_out_of_service_is_not_waited_for,
    ),
    ("a_volume_grows_at_its_host", a_volume_grows_at_its_host),
    (
        "a_dpu_is_called_with_certificates",
        a_dpu_is_called_with_certificates,
    ),
];

/// Writes and syncs.
pub(crate) fn write(path: &str, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::File::options().write(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn read(path: &str, length: usize) -> String {
    let mut file = std::fs::File::open(path).unwrap();
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn a_published_volume_is_a_disk_and_fresh_once() {
    run(async {
        let world = World::new().await;
        let id = world.create("a", 4).await;
        let mut reader = publication(&id, "node-1");
        reader.readonly = true;
        // Reading does not make a volume less fresh, and a reader may not format.
        let answer = world
            .controller()
            .controller_publish_volume(reader)
            .await
            .unwrap();
        assert_eq!(answer.into_inner().publish_context["fresh"], "false");
        let error = world.publish(&id, "node-1").await.unwrap_err();
        assert_eq!(
            error.code(),
            Code::AlreadyExists,
            "readonly, then not: {error}"
        );
        world.unpublish(&id, "node-1").await.unwrap();

        let context = world.publish(&id, "node-1").await.unwrap();
        assert_eq!(context["fresh"], "true");
        assert_eq!(context["kind"], "loop");
        assert_eq!(context["size"], (4 * MIB).to_string());
        assert!(id.ends_with(&context["uuid"]) && context["serial"].len() == 20);
        assert_eq!(
            world.publish(&id, "node-1").await.unwrap(),
            context,
            "constant while it is published"
        );
        assert_eq!(world.published(&id).await, ["node-1"]);
        let disk = context["address"].clone();
        tokio::task::spawn_blocking(move || write(&disk, "hello"))
            .await
            .unwrap()
            .unwrap();

        let error = world.delete(&id).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        let error = world.publish(&id, "node-2").await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.message().contains("node-1"), "{error}");
        let error = world.publish(&id, "fake-node-id").await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{error}");
        let error = world.publish("fake-vol-id", "node-1").await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{error}");
        // Not published there: nothing to do.
        world.unpublish(&id, "node-2").await.unwrap();
        world.unpublish(&id, "fake-node-id").await.unwrap();
        assert_eq!(world.published(&id).await, ["node-1"]);

        for _ in 0..2 {
            world.unpublish(&id, "node-1").await.unwrap();
        }
        assert_eq!(world.published(&id).await, [""; 0]);
        let context = world.publish(&id, "node-2").await.unwrap();
        assert_eq!(context["fresh"], "false", "somebody may have written");
        let disk = context["address"].clone();
        let text = tokio::task::spawn_blocking(move || read(&disk, 5))
            .await
            .unwrap();
        assert_eq!(text, "hello");
        // From every node.
        world.unpublish(&id, "").await.unwrap();
        world.delete(&id).await.unwrap();
        world.unpublish(&id, "node-2").await.unwrap();
        assert_eq!(world.leaks().await, [""; 0]);
        assert!(!world.controller_log().contains(" ERROR "));
    });
}

/// As of a pod that is sent elsewhere before its volume was staged.
fn a_volume_that_was_never_written_to_stays_fresh() {
    run(async {
        let mut world = World::new().await;
        let id = world.create("a", 4).await;
        for n in 0..3 {
            let node = ["node-1", "node-2"][n % 2];
            let context = world.publish(&id, node).await.unwrap();
            assert_eq!(context["fresh"], "true", "{n}");
            assert_eq!(world.publish(&id, node).await.unwrap(), context);
            if n == 1 {
                // Nobody takes it away in good order.
                world.dpus[1].stop().await;
            }
            world.unpublish(&id, node).await.unwrap();
            if n == 1 {
                world.kill().await;
                world.start(&[]).await;
            }
        }
        // The one that is away now comes back with what it had, and reaches nothing.
        world.dpus[1].serve(&world.path("dpu-1.sock")).await;
        let mut reader = publication(&id, "node-2");
        reader.readonly = true;
        let mut controller = world.controller();
        let answer = controller.controller_publish_volume(reader).await.unwrap();
        assert_eq!(answer.into_inner().publish_context["fresh"], "false");
        world.unpublish(&id, "node-2").await.unwrap();

        let context = world.publish(&id, "node-2").await.unwrap();
        assert_eq!(context["fresh"], "true");
        let disk = context["address"].clone();
        let written = tokio::task::spawn_blocking(move || write(&disk, "hello"));
        written.await.unwrap().unwrap();
        for node in ["node-2", "node-1", "node-2"] {
            world.unpublish(&id, "").await.unwrap();
            let context = world.publish(&id, node).await.unwrap();
            assert_eq!(context["fresh"], "false");
        }
        world.unpublish(&id, "").await.unwrap();

        // A copy is as what it was made from.
        let empty = world.create("empty", 4).await;
        let mut ids = vec![id.clone(), empty.clone()];
        for (n, (source, fresh)) in [(id, "false"), (empty, "true")].into_iter().enumerate() {
            let mut copy = crate::world::volume(&format!("copy-{n}"), 4);
            let source = volume_content_source::VolumeSource { volume_id: source };
            copy.volume_content_source = Some(VolumeContentSource {
                r#type: Some(volume_content_source::Type::Volume(source)),
            });
            let copy = controller.create_volume(copy).await.unwrap().into_inner();
            let copy = copy.volume.unwrap().volume_id;
            for node in ["node-1", "node-2"] {
                let context = world.publish(&copy, node).await.unwrap();
                assert_eq!(context["fresh"], fresh);
                world.unpublish(&copy, node).await.unwrap();
            }
            ids.push(copy);
        }
        for id in ids {
            world.delete(&id).await.unwrap();
        }
        assert_eq!(world.leaks().await, [""; 0]);
    });
}

fn one_host_at_a_time_unless_raw_and_shared() {
    run(async {
        let world = World::new().await;
        let id = world.create("a", 4).await;
        let shared = |node: &str, block, mode| ControllerPublishVolumeRequest {
            volume_capability: Some(capability(block, mode)),
            ..publication(&id, node)
        };
        let mut controller = world.controller();
        let error = controller
            .controller_publish_volume(shared("node-1", false, Mode::MultiNodeMultiWriter))
            .await;
        assert_eq!(error.unwrap_err().code(), Code::InvalidArgument);
        let one = Mode::MultiNodeSingleWriter;
        let first = controller
            .controller_publish_volume(shared("node-1", true, one))
            .await
            .unwrap();
        assert_eq!(first.into_inner().publish_context["fresh"], "true");
        let error = controller
            .controller_publish_volume(shared("node-2", true, one))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.message().contains("node-1"), "{error}");
        let mut reader = shared("node-2", true, one);
        reader.readonly = true;
        let second = controller.controller_publish_volume(reader).await.unwrap();
        assert_eq!(second.into_inner().publish_context["fresh"], "false");
        let list = controller
            .list_volumes(ListVolumesRequest::default())
            .await
            .unwrap()
            .into_inner();
        let status = list.entries[0].status.clone().unwrap();
        assert_eq!(status.published_node_ids, ["node-1", "node-2"]);
        let health = ControllerGetVolumeHealthRequest {
            volume_id: id.clone(),
            ..Default::default()
        };
        let health = controller
            .controller_get_volume_health(health)
            .await
            .unwrap();
        let health = health.into_inner().volume_health.unwrap();
        assert_eq!(
            (health.volume_id, health.health_statuses),
            (id.clone(), vec![])
        );
        world.unpublish(&id, "").await.unwrap();
        world.delete(&id).await.unwrap();
        assert_eq!(world.leaks().await, [""; 0]);
    });
}

fn a_volume_has_a_socket_where_its_class_says_so() {
    run(async {
        let world = World::new().await;
        let block = capability(true, Mode::SingleNodeWriter);
        let mut asked = volume("a", 4);
        asked.volume_capabilities = vec![block.clone()];
        let parameter = |request: &mut CreateVolumeRequest, key: &str, value: &str| {
            request.parameters.insert(key.into(), value.into());
        };
        parameter(&mut asked, "vhostUserBlk", "true");
        parameter(&mut asked, "vhostUserBlkQueues", "2");
        let create = async |request: &CreateVolumeRequest| {
            let answer = world.controller().create_volume(request.clone()).await?;
            Ok::<_, tonic::Status>(answer.into_inner().volume.unwrap())
        };
        let refused = async |request: &CreateVolumeRequest, says: &str| {
            let error = create(request).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{error}");
            assert!(error.message().contains(says), "{error}");
        };
        refused(&asked, "--extra-create-metadata").await;
        parameter(&mut asked, "csi.storage.k8s.io/pvc/name", "data");
        let mut mounted = asked.clone();
        mounted.volume_capabilities = vec![capability(false, Mode::SingleNodeWriter)];
        refused(&mounted, "volumeMode: Block").await;
        let made = create(&asked).await.unwrap();
        assert_eq!(create(&asked).await.unwrap(), made, "repeated");
        let context: Vec<_> = made
            .volume_context
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(
            context,
            ["claim=data", "vhostUserBlk=true", "vhostUserBlkQueues=2"]
        );

        let mut publish = publication(&made.volume_id, "node-1");
        publish.volume_context = made.volume_context.clone();
        let refused = async |request: &ControllerPublishVolumeRequest, code, says: &str| {
            let error = world
                .controller()
                .controller_publish_volume(request.clone())
                .await;
            let error = error.unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.message().contains(says), "{error}");
        };
        refused(&publish, Code::InvalidArgument, "volumeMode: Block").await;
        publish.volume_capability = Some(block);
        let mut unnamed = publish.clone();
        unnamed.volume_context.remove("claim");
        refused(&unnamed, Code::InvalidArgument, "csi.volumeAttributes").await;
        // A release that ignores the wish: nothing is left of the attempt.
        world.dpus[0].old(true);
        refused(&publish, Code::FailedPrecondition, "update csi-node-dpu").await;
        assert_eq!(world.published(&made.volume_id).await, [""; 0]);
        assert!(world.dpus[0].attached().await.is_empty());
        world.dpus[0].old(false);
        assert_eq!(world.dpus[0].queues(), [Some(2)]);
        for _ in 0..2 {
            let answer = world
                .controller()
                .controller_publish_volume(publish.clone())
                .await;
            let context = answer.unwrap().into_inner().publish_context;
            let directory = format!("{}.vhost", context["uuid"]);
            let directory = world
                .path("exports/node-1")
                .join(directory)
                .display()
                .to_string();
            assert_eq!(
                (&*context["kind"], &context["vhost-user-socket"]),
                ("loop", &directory)
            );
        }
        world.unpublish(&made.volume_id, "node-1").await.unwrap();
        // Without the wish nothing is said of a socket.
        publish.volume_context.clear();
        let answer = world.controller().controller_publish_volume(publish).await;
        assert!(
            !answer
                .unwrap()
                .into_inner()
                .publish_context
                .contains_key("vhost-user-socket")
        );
        assert_eq!(world.dpus[0].queues(), [Some(2), Some(2), None]);
        world.unpublish(&made.volume_id, "node-1").await.unwrap();
        world.delete(&made.volume_id).await.unwrap();
        assert_eq!(world.leaks().await, [""; 0]);
    });
}

fn a_node_has_limits() {
    run(async {
        let world = World::new().await;
        world.write_nodes(", limit: 1", "");
        let (a, b) = (world.create("a", 1).await, world.create("b", 1).await);
        let (first, second) =
            tokio::join!(world.publish(&a, "node-1"), world.publish(&b, "node-1"));
        let errors: Vec<_> = [first, second]
            .into_iter()
            .filter_map(Result::err)
            .collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].code(), Code::ResourceExhausted);
        assert!(
            errors[0].message().contains("its limit is 1"),
            "{}",
            errors[0]
        );
        for id in [&a, &b] {
            world.unpublish(id, "node-1").await.unwrap();
        }
        world.publish(&b, "node-1").await.unwrap();
        assert_eq!(world.published(&b).await, ["node-1"], "there is room again");
        // What is there already is not counted against itself.
        world.publish(&b, "node-1").await.unwrap();
    });
}

fn many_at_once_do_not_wait_for_each_other() {
    run(async {
        let world = World::new().await;
        world.write_nodes(", limit: 10", "");
        let mut ids = Vec::new();
        for n in 0..12 {
            ids.push(world.create(&format!("v{n}"), 1).await);
        }
        let published = ids.iter().map(|id| world.publish(id, "node-1"));
        let published = futures::future::join_all(published).await;
        let errors: Vec<_> = published.into_iter().filter_map(Result::err).collect();
        let codes: Vec<_> = errors.iter().map(tonic::Status::code).collect();
        assert_eq!(codes, [Code::ResourceExhausted; 2], "{errors:?}");
        for done in futures::future::join_all(ids.iter().map(|id| world.unpublish(id, ""))).await {
            done.unwrap();
        }
        for id in &ids {
            world.delete(id).await.unwrap();
        }
        assert_eq!(world.leaks().await, [""; 0]);
    });
}

fn refusals_keep_their_code_and_leave_nothing() {
    run(async {
        let world = World::new().await;
        let id = world.create("a", 1).await;
        for (code, answered) in [
            (Code::ResourceExhausted, Code::ResourceExhausted),
            (Code::FailedPrecondition, Code::FailedPrecondition),
            (Code::Unimplemented, Code::FailedPrecondition),
        ] {
            world.dpus[0].refuse(Some(code));
            let error = world.publish(&id, "node-1").await.unwrap_err();
            assert_eq!(error.code(), answered, "{error}");
            assert!(
                error
                    .message()
                    .starts_with("csi-node-dpu of node node-1: as the test wants it"),
                "{error}"
            );
            assert!(error.details().is_empty());
            assert_eq!(world.published(&id).await, [""; 0], "{code:?}");
        }
        // Whether it was done is not known: the host keeps its access until somebody asks again.
        for code in [Code::Internal, Code::Unknown] {
            world.dpus[0].refuse(Some(code));
            let error = world.publish(&id, "node-1").await.unwrap_err();
            assert_eq!(error.code(), Code::Unavailable, "{error}");
            assert_eq!(world.published(&id).await, ["node-1"]);
        }
        world.dpus[0].refuse(None);
        assert_eq!(
            world.publish(&id, "node-1").await.unwrap()["fresh"],
            "true",
            "nobody had it so far"
        );
        // A host that does not let go is not cut off, unless it is out of service.
        world.dpus[0].in_use(true);
        let error = world.unpublish(&id, "node-1").await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert_eq!(world.published(&id).await, ["node-1"]);
        world.write_nodes(", outOfService: true", "");
        world.unpublish(&id, "node-1").await.unwrap();
        assert_eq!(world.published(&id).await, [""; 0]);
    });
}

fn a_host_whose_dpu_is_away_is_fenced() {
    run(async {
        let world = World::new().await;
        let id = world.create("a", 1).await;
        let context = world.publish(&id, "node-1").await.unwrap();
        let disk = context["address"].clone();
        let path = disk.clone();
        tokio::task::spawn_blocking(move || write(&path, "first"))
            .await
            .unwrap()
            .unwrap();
        world.dpus[0].stop().await;
        let health = ControllerGetVolumeHealthRequest {
            volume_id: id.clone(),
            ..Default::default()
        };
        let health = world
            .controller()
            .controller_get_volume_health(health)
            .await
            .unwrap()
            .into_inner()
            .volume_health
            .unwrap();
        let [wrong] = health.health_statuses.as_slice() else {
            panic!("{health:?}");
        };
        assert!(
            wrong.reason == "AtNode" && wrong.message.contains("node-1"),
            "{wrong:?}"
        );
        world.unpublish(&id, "node-1").await.unwrap();
        assert_eq!(world.published(&id).await, [""; 0]);
        // The disk is still there, and what is written to it arrives nowhere.
        // (Another process: one that is started while a file of a stuck disk is open here would be stuck, too.)
        let late = tokio::process::Command::new("dd")
            .args([
                &format!("of={disk}"),
                "if=/dev/zero",
                "bs=512",
                "count=1",
                "conv=notrunc,fsync",
            ])
            .stderr(std::process::Stdio::null())
            .spawn();
        let context = world.publish(&id, "node-2").await.unwrap();
        assert_eq!(context["fresh"], "false");
        let disk = context["address"].clone();
        let text = tokio::task::spawn_blocking(move || read(&disk, 5))
            .await
            .unwrap();
        assert_eq!(text, "first");
        world.unpublish(&id, "node-2").await.unwrap();
        // It is back, with what it had: in the way of a new publication, so it is taken away.
        world.dpus[0].serve(&world.path("dpu-0.sock")).await;
        world.dpus[0].calls();
        let context = world.publish(&id, "node-1").await.unwrap();
        assert_eq!(world.dpus[0].calls(), ["Attach", "Detach", "Attach"]);
        assert!(!late.unwrap().wait().await.unwrap().success(), "cut off");
        let disk = context["address"].clone();
        let text = tokio::task::spawn_blocking(move || read(&disk, 5))
            .await
            .unwrap();
        assert_eq!(text, "first");
        world.unpublish(&id, "node-1").await.unwrap();
        world.delete(&id).await.unwrap();
        assert_eq!(world.leaks().await, [""; 0]);
        assert!(world.controller_log().contains("is cut off at the target"));
    });
}

fn a_node_that_is_out_of_service_is_not_waited_for() {
    run(async {
        let world = World::new().await;
        let id = world.create("a", 1).await;
        world.publish(&id, "node-1").await.unwrap();
        // Somebody takes connections there, and says nothing.
        let silent = world.path("silent.sock");
        let _silent = std::os::unix::net::UnixListener::bind(&silent).unwrap();
        let text = format!(
            "nodes: [{{id: node-1, address: 'unix:{}', outOfService: true}}]",
            silent.display()
        );
        std::fs::write(world.path("nodes.yaml"), text).unwrap();
        let begun = std::time::Instant::now();
        world.unpublish(&id, "node-1").await.unwrap();
        let took = begun.elapsed();
        assert!(took < std::time::Duration::from_secs(6), "{took:?}");
        assert_eq!(world.published(&id).await, [""; 0]);
        world.delete(&id).await.unwrap();
    });
}

fn a_volume_grows_at_its_host() {
    run(async {
        let world = World::new().await;
        let id = world.create("a", 4).await;
        let context = world.publish(&id, "node-1").await.unwrap();
        let disk = context["address"].clone();
        let path = disk.clone();
        tokio::task::spawn_blocking(move || write(&path, "hello"))
            .await
            .unwrap()
            .unwrap();
        let expand = |bytes: i64, limit: i64| ControllerExpandVolumeRequest {
            volume_id: id.clone(),
            capacity_range: Some(CapacityRange {
                required_bytes: bytes,
                limit_bytes: limit,
            }),
            ..Default::default()
        };
        let mut controller = world.controller();
        for bytes in [8 * MIB, 8 * MIB, 6 * MIB] {
            let grown = controller
                .controller_expand_volume(expand(bytes, 0))
                .await
                .unwrap()
                .into_inner();
            assert_eq!(
                (grown.capacity_bytes, grown.node_expansion_required),
                (8 * MIB, true)
            );
            assert_eq!(
                std::fs::metadata(&disk).unwrap().len(),
                8 << 20,
                "the host sees it"
            );
        }
        let error = controller
            .controller_expand_volume(expand(1, 6 * MIB))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::OutOfRange, "{error}");
        let text = tokio::task::spawn_blocking(move || read(&disk, 5))
            .await
            .unwrap();
        assert_eq!(text, "hello");
        world.unpublish(&id, "node-1").await.unwrap();
        world.delete(&id).await.unwrap();
        assert_eq!(world.leaks().await, [""; 0]);
    });
}

fn a_dpu_is_called_with_certificates() {
    run(async {
        let mut world = World::prepared().await;
        let tls = world.path("tls");
        std::fs::create_dir(&tls).unwrap();
        let server = certificates(&tls);
        world.flags = vec!["--node-tls".into(), tls.display().to_string()];
        let dpu = Dpu::new(world.dir.path(), "node-3");
        let port = dpu.serve_tls(&server, "127.0.0.1:0").await;
        let node = |name: &str| {
            let text = format!(
                "nodes: [{{id: node-3, address: 'https://127.0.0.1:{port}', serverName: {name}}}]"
            );
            std::fs::write(world.path("nodes.yaml"), text).unwrap();
        };
        node("dpu-3");
        world.start(&[]).await;
        let id = world.create("a", 1).await;
        world.publish(&id, "node-3").await.unwrap();
        world.unpublish(&id, "node-3").await.unwrap();
        assert_eq!(dpu.calls(), ["Attach", "Detach"]);
        // Somebody else at that address.
        let text = format!(
            "nodes: [{{id: node-3, address: 'https://127.0.0.1:{port}', serverName: dpu-33}}]"
        );
        std::fs::write(world.path("nodes.yaml"), text).unwrap();
        let error = world.publish(&id, "node-3").await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        // The fence needs no DPU.
        world.unpublish(&id, "node-3").await.unwrap();
        assert_eq!(dpu.calls(), [""; 0]);
        world.delete(&id).await.unwrap();
        assert_eq!(world.leaks().await, [""; 0]);
    });
}

/// The client's files in `dir`, and the server's.
fn certificates(dir: &std::path::Path) -> Pems {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "authority");
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let leaf = |name: &str| {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (
            params.signed_by(&key, &issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    };
    let (cert, key) = leaf("csi-controller");
    std::fs::write(dir.join("ca-cert.pem"), &ca).unwrap();
    std::fs::write(dir.join("client-cert.pem"), cert).unwrap();
    std::fs::write(dir.join("client-key.pem"), key).unwrap();
    let (cert, key) = leaf("dpu-3");
    Pems { ca, cert, key }
}
