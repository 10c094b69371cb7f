//! Names, repetition, codes, pages.

use proto::card::v1::{ListSourcesRequest, SetLimitsRequest};
use proto::opi::storage::v1 as opi;
use proto::opi::storage::v1::aio_volume_service_client::AioVolumeServiceClient;
use proto::opi::storage::v1::frontend_nvme_service_client::FrontendNvmeServiceClient;
use proto::opi::storage::v1::malloc_volume_service_client::MallocVolumeServiceClient;
use proto::opi::storage::v1::middleend_qos_volume_service_client::MiddleendQosVolumeServiceClient;
use proto::opi::storage::v1::nvme_remote_controller_service_client::NvmeRemoteControllerServiceClient;
use proto::volume::v1::source::Kind;
use proto::volume::v1::{EngineSource, Limits, NbdSource, TcpAddress, Tls, nbd_source};
use tonic::Code;

use crate::run;
use crate::world::{MIB, UUID, World, block, file};

pub(crate) fn equal_is_the_same_and_other_is_named() {
    run(async {
        let world = World::start().await;
        let image = world.raw("a.img", 8 * MIB);
        let made = world.source("a", file(&image), UUID).await.unwrap();
        assert_eq!(
            (made.name.as_str(), made.size_bytes, made.block_size),
            ("sources/a", 8 * MIB, 512)
        );
        assert_eq!(world.source("a", file(&image), UUID).await.unwrap(), made);
        // At once, too.
        let (one, two) = tokio::join!(
            world.source("a", file(&image), UUID),
            world.source("a", file(&image), UUID)
        );
        assert_eq!((one.unwrap(), two.unwrap()), (made.clone(), made));
        let other = world
            .source("a", file(&world.raw("b.img", MIB)), UUID)
            .await
            .unwrap_err();
        assert_eq!(other.code(), Code::AlreadyExists);
        assert!(other.message().contains("another source"), "{other}");

        let mut aio = AioVolumeServiceClient::new(world.channel());
        let volume = opi::AioVolume {
            filename: world.raw("c.img", MIB).to_string_lossy().into_owned(),
            ..Default::default()
        };
        let request = opi::CreateAioVolumeRequest {
            aio_volume: Some(volume),
            aio_volume_id: "c".into(),
        };
        let made = aio
            .create_aio_volume(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(made.name, "aioVolumes/c");
        assert_eq!(
            aio.create_aio_volume(request).await.unwrap().into_inner(),
            made
        );
        let get = opi::GetAioVolumeRequest {
            name: made.name.clone(),
        };
        assert_eq!(aio.get_aio_volume(get).await.unwrap().into_inner(), made);

        // Limits of a QoS volume change by a mask that names them, and by no other.
        let mut qos = MiddleendQosVolumeServiceClient::new(world.channel());
        let wish = |kiops| opi::QosVolume {
            name: "qosVolumes/q".into(),
            volume_name_ref: "aioVolumes/c".into(),
            limits: Some(opi::Limits {
                min: None,
                max: Some(opi::QosLimit {
                    rw_iops_kiops: kiops,
                    ..Default::default()
                }),
            }),
        };
        let request = opi::CreateQosVolumeRequest {
            qos_volume: Some(wish(5)),
            qos_volume_id: "q".into(),
        };
        qos.create_qos_volume(request).await.unwrap();
        let update = |paths: &[&str], wish| opi::UpdateQosVolumeRequest {
            qos_volume: Some(wish),
            update_mask: Some(proto_mask(paths)),
            allow_missing: false,
        };
        let updated = qos
            .update_qos_volume(update(&["limits"], wish(7)))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(updated.limits.unwrap().max.unwrap().rw_iops_kiops, 7);
        let none = qos
            .update_qos_volume(update(&["colour"], wish(7)))
            .await
            .unwrap_err();
        assert_eq!(none.code(), Code::InvalidArgument);
        let used = aio
            .delete_aio_volume(opi::DeleteAioVolumeRequest {
                name: made.name.clone(),
                allow_missing: false,
            })
            .await;
        assert!(used.unwrap_err().message().contains("qosVolumes/q"));
        qos.delete_qos_volume(opi::DeleteQosVolumeRequest {
            name: "qosVolumes/q".into(),
            allow_missing: false,
        })
        .await
        .unwrap();
        let delete = |allow_missing| opi::DeleteAioVolumeRequest {
            name: made.name.clone(),
            allow_missing,
        };
        aio.delete_aio_volume(delete(false)).await.unwrap();
        assert_eq!(
            aio.delete_aio_volume(delete(false))
                .await
                .unwrap_err()
                .code(),
            Code::NotFound
        );
        aio.delete_aio_volume(delete(true)).await.unwrap();
        world.delete_source("sources/a").await.unwrap();
        world.delete_source("sources/a").await.unwrap();
        world.sweep().await;
    });
}

fn proto_mask(paths: &[&str]) -> prost_types::FieldMask {
    prost_types::FieldMask {
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
    }
}

pub(crate) fn bad_input_has_its_code_and_sentence() {
    run(async {
        let world = World::start().await;
        let image = world.raw("a.img", MIB);
        let tcp = |ip: &str, tls| {
            Kind::Nbd(NbdSource {
                address: Some(nbd_source::Address::Tcp(TcpAddress {
                    ip: ip.into(),
                    port: 10809,
                })),
                export_name: "x".into(),
                tls,
                reconnect_delay_seconds: 0,
            })
        };
        let tls = |credentials: &str| {
            Some(Tls {
                credentials: credentials.into(),
                server_name: String::new(),
            })
        };
        let engine = |node: &str| {
            Kind::Engine(EngineSource {
                engine_id: "v-x".into(),
                node_name: node.into(),
            })
        };
        let cases = [
            ("", file(&image), UUID, Code::InvalidArgument, "1 to 63"),
            ("A", file(&image), UUID, Code::InvalidArgument, "a-z"),
            ("a", file(&image), "6BA7B810", Code::InvalidArgument, "uuid"),
            (
                "a",
                file(std::path::Path::new("a.img")),
                UUID,
                Code::InvalidArgument,
                "absolute",
            ),
            (
                "a",
                file(&world.path("none.img")),
                UUID,
                Code::NotFound,
                "No such file",
            ),
            (
                "a",
                tcp("target.example", None),
                UUID,
                Code::InvalidArgument,
                "not an IP address",
            ),
            (
                "a",
                tcp("198.18.0.9", None),
                UUID,
                Code::InvalidArgument,
                "plain text",
            ),
            (
                "a",
                tcp("198.18.0.9", tls("../x")),
                UUID,
                Code::InvalidArgument,
                "path component",
            ),
            (
                "a",
                tcp("198.18.0.9", tls("x")),
                UUID,
                Code::NotFound,
                "ca-cert.pem",
            ),
            (
                "a",
                engine("there"),
                UUID,
                Code::FailedPrecondition,
                "runs on node",
            ),
            ("a", engine("here"), UUID, Code::NotFound, "no daemon v-x"),
            (
                "a",
                Kind::Nvmeof(Default::default()),
                UUID,
                Code::Unimplemented,
                "NBD",
            ),
        ];
        for (id, kind, uuid, code, sentence) in cases {
            let refused = world.source(id, kind, uuid).await.unwrap_err();
            assert_eq!(refused.code(), code, "{refused}");
            assert!(refused.message().contains(sentence), "{refused}");
        }
        let missing = world
            .device("d", "sources/none", block())
            .await
            .unwrap_err();
        assert_eq!(missing.code(), Code::NotFound);
        world.source("a", file(&image), UUID).await.unwrap();
        let twice = world.source("b", file(&image), UUID).await.unwrap_err();
        assert_eq!(twice.code(), Code::FailedPrecondition, "{twice}");
        let limits = Limits {
            iops: 5,
            read_iops: 5,
            ..Limits::default()
        };
        let both = SetLimitsRequest {
            name: "sources/a".into(),
            limits: Some(limits),
        };
        assert_eq!(
            world.card().set_limits(both).await.unwrap_err().code(),
            Code::InvalidArgument
        );

        let mut malloc = MallocVolumeServiceClient::new(world.channel());
        let refused = malloc
            .list_malloc_volumes(opi::ListMallocVolumesRequest::default())
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        let mut remote = NvmeRemoteControllerServiceClient::new(world.channel());
        let refused = remote
            .create_nvme_path(opi::CreateNvmePathRequest::default())
            .await
            .unwrap_err();
        assert!(refused.message().contains("nvme-fabrics"), "{refused}");
        // A secret is refused, and in no log.
        let mut nvme = FrontendNvmeServiceClient::new(world.channel());
        let spec = opi::NvmeSubsystemSpec {
            nqn: "nqn.2014-08.org.example:a".into(),
            psk: b"moonlight-sonata".to_vec(),
            ..Default::default()
        };
        let request = opi::CreateNvmeSubsystemRequest {
            nvme_subsystem: Some(opi::NvmeSubsystem {
                spec: Some(spec),
                ..Default::default()
            }),
            nvme_subsystem_id: "s".into(),
        };
        assert_eq!(
            nvme.create_nvme_subsystem(request)
                .await
                .unwrap_err()
                .code(),
            Code::Unimplemented
        );
        assert!(!world.log().contains("moonlight"));
        world.delete_source("sources/a").await.unwrap();
        world.sweep().await;
    });
}

pub(crate) fn lists_come_in_pages() {
    run(async {
        let world = World::start().await;
        for n in 0..5 {
            let uuid = format!("00000000-0000-4000-8000-00000000000{n}");
            let image = world.raw(&format!("{n}.img"), MIB);
            world
                .source(&format!("s{n}"), file(&image), &uuid)
                .await
                .unwrap();
        }
        let (mut names, mut token) = (Vec::new(), String::new());
        loop {
            let request = ListSourcesRequest {
                page_size: 2,
                page_token: token,
            };
            let page = world
                .card()
                .list_sources(request)
                .await
                .unwrap()
                .into_inner();
            assert!(page.sources.len() <= 2);
            names.extend(page.sources.into_iter().map(|source| source.name));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(
            names,
            [
                "sources/s0",
                "sources/s1",
                "sources/s2",
                "sources/s3",
                "sources/s4"
            ]
        );
        let alien = ListSourcesRequest {
            page_size: 2,
            page_token: "alien".into(),
        };
        assert_eq!(
            world.card().list_sources(alien).await.unwrap_err().code(),
            Code::InvalidArgument
        );
        for name in names {
            world.delete_source(&name).await.unwrap();
        }
        world.sweep().await;
    });
}

/// ca.crt, tls.crt and tls.key of a server on loopback, client.crt and client.key.
pub(crate) fn certificates(dir: &std::path::Path) {
    let shell = format!(
        "cd {} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj \"/CN=ca of $(basename $PWD)\" -keyout ca.key -out ca.crt \
         -addext keyUsage=keyCertSign -addext basicConstraints=critical,CA:TRUE 2>&1 \
         && for n in tls client; do openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$n -keyout $n.key -out $n.csr 2>&1 \
         && printf 'subjectAltName=DNS:bridge,IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > ext \
         && openssl x509 -req -in $n.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $n.crt 2>&1; done",
        dir.display()
    );
    let made = std::process::Command::new("sh")
        .args(["-c", &shell])
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stdout)
    );
}

pub(crate) fn tcp_needs_a_certificate() {
    run(async {
        use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
        let home = tempfile::tempdir().unwrap();
        certificates(home.path());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let dir = home.path().to_string_lossy().into_owned();
        let world = World::with(&["--address", &address, "--tls-dir", &dir]).await;
        let read = |name: &str| std::fs::read(home.path().join(name)).unwrap();
        let anonymous = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.crt")))
            .domain_name("bridge");
        let known = anonymous
            .clone()
            .identity(Identity::from_pem(read("client.crt"), read("client.key")));
        let call = async |tls: ClientTlsConfig| {
            let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
            let channel = endpoint.tls_config(tls).unwrap().connect_lazy();
            let mut card = proto::card::v1::card_client::CardClient::new(channel);
            card.inventory(proto::card::v1::InventoryRequest {}).await
        };
        assert!(call(anonymous).await.is_err());
        assert_eq!(call(known).await.unwrap().into_inner().card, "linux");
        drop(world);
    });
}
