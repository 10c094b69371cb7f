//! What a host sees: bytes, sizes, speed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use engine::{Put, Recipe};
use proto::card::v1::{ResizeRequest, SetLimitsRequest};
use proto::opi::storage::v1 as opi;
use proto::opi::storage::v1::null_volume_service_client::NullVolumeServiceClient;
use proto::volume::v1::source::Kind;
use proto::volume::v1::{EngineSource, Limits, NbdSource, TcpAddress, Tls, nbd_source};
use qemu::commands::{BlockdevAdd, Node};
use tonic::Code;

use crate::beside::killed;
use crate::run;
use crate::world::{Disk, MIB, UUID, World, block, file, nbd, path_of, soon, target, vhost_user};

const NAME: &str = "localDevices/d";

pub(crate) fn block_device_keeps_its_bytes() {
    run(async {
        let world = World::start().await;
        let image = world.raw("a.img", 8 * MIB);
        world.source("a", file(&image), UUID).await.unwrap();
        let device = world.device("d", "sources/a", block()).await.unwrap();
        assert_eq!(
            (
                device.size_bytes,
                device.serial.as_str(),
                device.uuid.as_str()
            ),
            (8 * MIB, "NOT3QEE5VUI5DAFUADAE", UUID)
        );
        assert_eq!(
            world.loops(),
            [format!("{}\n", world.path("x").join(UUID).display())]
        );
        // The daemon's monitor is kept for the next call, and soon free for somebody else.
        let monitor = world.engine_client().list(Some("card"), soon()).await;
        let monitor = monitor.unwrap()[0].qmp_card();
        let kept = || {
            let table = std::fs::read_to_string("/proc/net/unix").unwrap();
            let of = |line: &&str| line.ends_with(&*monitor.to_string_lossy());
            // Flags are those of a listener otherwise.
            let mut lines = table.lines().filter(of);
            lines.any(|line| line.split_whitespace().nth(5) == Some("03"))
        };
        assert!(kept());
        let begun = Instant::now();
        while kept() {
            assert!(begun.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Again, and after a restart of the bridge: the same one; requests go on.
        assert_eq!(
            world.device("d", "sources/a", block()).await.unwrap(),
            device
        );
        let disk = Disk::open(&path_of(&device));
        (0..64).for_each(|n| disk.write(n).unwrap());
        world.kill_bridge();
        (64..128).for_each(|n| disk.write(n).unwrap());
        world.start_bridge(None);
        world.answers().await;
        let seen = world.get_device(NAME).await.unwrap();
        assert_eq!((seen.device, seen.in_use), (Some(device.clone()), true));
        disk.sync().unwrap();
        assert!((0..128).all(|n| disk.holds(n).unwrap()));
        assert_eq!(world.loops().len(), 1);

        let twice = world
            .device("e", "sources/a", vhost_user())
            .await
            .unwrap_err();
        assert_eq!(twice.code(), Code::FailedPrecondition);
        assert!(twice.message().contains(NAME));
        let used = world.delete_device(NAME, false).await.unwrap_err();
        assert_eq!(used.code(), Code::FailedPrecondition);
        assert!(used.message().contains("unmount"), "{used}");
        assert!(disk.holds(5).unwrap(), "a refused call changes nothing");
        drop(disk);
        world.delete_device(NAME, false).await.unwrap();
        world.delete_device(NAME, false).await.unwrap();
        world.delete_source("sources/a").await.unwrap();
        world.sweep().await;
        let file = Disk::open(&image);
        assert!((0..128).all(|n| file.holds(n).unwrap()));
    });
}

pub(crate) fn size_grows_under_a_writer() {
    run(async {
        let world = World::start().await;
        let image = world.raw("a.img", 4 * MIB);
        world.source("a", file(&image), UUID).await.unwrap();
        let device = world.device("d", "sources/a", block()).await.unwrap();
        let path = path_of(&device);
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (path, stop) = (path.clone(), stop.clone());
            move || {
                let disk = Disk::open(&path);
                for n in (0..512).cycle() {
                    disk.write(n).unwrap();
                    assert!(disk.holds(n).unwrap());
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        return;
                    }
                }
            }
        });
        let resize = async |size: u64| {
            let request = ResizeRequest {
                name: "sources/a".into(),
                size_bytes: size,
            };
            world
                .card()
                .resize(request)
                .await
                .map(|answer| answer.into_inner().size_bytes)
        };
        assert_eq!(resize(8 * MIB).await.unwrap_err().code(), Code::OutOfRange);
        std::fs::File::options()
            .write(true)
            .open(&image)
            .unwrap()
            .set_len(8 * MIB)
            .unwrap();
        assert_eq!(resize(8 * MIB).await.unwrap(), 8 * MIB);
        assert_eq!(resize(0).await.unwrap(), 8 * MIB);
        assert_eq!(resize(4 * MIB).await.unwrap_err().code(), Code::OutOfRange);
        Disk::open(&path).write(2000).unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        writer.join().unwrap();
        assert_eq!(
            world
                .get_device(NAME)
                .await
                .unwrap()
                .device
                .unwrap()
                .size_bytes,
            8 * MIB
        );
        world.delete_device(NAME, false).await.unwrap();
        world.delete_source("sources/a").await.unwrap();
        world.sweep().await;

        // Over NBD: a target that has grown cuts its clients; here it is started anew.
        let image = world.raw("n.img", 4 * MIB);
        let socket = world.path("t.sock");
        let first = target(&image, &socket).await;
        world.source("a", nbd(&socket), UUID).await.unwrap();
        let device = world.device("d", "sources/a", block()).await.unwrap();
        drop(first);
        std::fs::File::options()
            .write(true)
            .open(&image)
            .unwrap()
            .set_len(8 * MIB)
            .unwrap();
        let _second = target(&image, &socket).await;
        assert_eq!(resize(0).await.unwrap(), 8 * MIB);
        let disk = Disk::open(&path_of(&device));
        disk.write(2000).unwrap();
        assert!(disk.holds(2000).unwrap());
        drop(disk);
        world.delete_device(NAME, false).await.unwrap();
        world.delete_source("sources/a").await.unwrap();
        world.sweep().await;
    });
}

pub(crate) fn nbd_over_tls() {
    run(async {
        let world = World::start().await;
        let (server, client) = (world.path("server"), world.path("c/t"));
        std::fs::create_dir_all(&server).unwrap();
        std::fs::create_dir_all(&client).unwrap();
        crate::objects::certificates(&server);
        for (from, to) in [
            ("ca.crt", server.join("ca-cert.pem")),
            ("tls.crt", server.join("server-cert.pem")),
            ("tls.key", server.join("server-key.pem")),
            ("ca.crt", client.join("ca-cert.pem")),
            ("client.crt", client.join("client-cert.pem")),
            ("client.key", client.join("client-key.pem")),
        ] {
            std::fs::copy(server.join(from), to).unwrap();
        }
        let image = world.raw("a.img", 4 * MIB);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let target = std::process::Command::new("qemu-storage-daemon")
            .arg("--object")
            .arg(format!(
                "tls-creds-x509,id=t,endpoint=server,verify-peer=on,dir={}",
                server.display()
            ))
            .args(["--object", "authz-simple,id=a,identity=CN=client"])
            .arg("--blockdev")
            .arg(format!("file,node-name=d,filename={}", image.display()))
            .arg("--nbd-server")
            .arg(format!(
                "addr.type=inet,addr.host=127.0.0.1,addr.port={port},tls-creds=t,tls-authz=a"
            ))
            .args(["--export", "nbd,id=e,node-name=d,name=vol,writable=on"])
            .spawn()
            .unwrap();
        let _target = crate::world::Ended(target);
        let source = |tls| {
            Kind::Nbd(NbdSource {
                address: Some(nbd_source::Address::Tcp(TcpAddress {
                    ip: "127.0.0.1".into(),
                    port: port.into(),
                })),
                export_name: "vol".into(),
                tls,
                reconnect_delay_seconds: 5,
            })
        };
        let tls = Some(Tls {
            credentials: "t".into(),
            server_name: String::new(),
        });
        // The target may not be up yet: the wish is kept, and made good by the same call.
        let begun = Instant::now();
        while let Err(why) = world.source("a", source(tls.clone()), UUID).await {
            assert_eq!(why.code(), Code::Unavailable, "{why}");
            assert!(begun.elapsed() < Duration::from_secs(30), "{why}");
        }
        let device = world.device("d", "sources/a", block()).await.unwrap();
        let disk = Disk::open(&path_of(&device));
        (0..16).for_each(|n| disk.write(n).unwrap());
        disk.sync().unwrap();
        drop(disk);
        let file = Disk::open(&image);
        assert!((0..16).all(|n| file.holds(n).unwrap()));
        let plain = world
            .source("b", source(None), "00000000-0000-4000-8000-000000000001")
            .await
            .unwrap_err();
        assert_eq!(plain.code(), Code::Unavailable, "{plain}");
        world.delete_source("sources/b").await.unwrap();
        world.delete_device(NAME, false).await.unwrap();
        world.delete_source("sources/a").await.unwrap();
        world.sweep().await;
    });
}

/// The volume stays attached while the node's certificate, and the authority, are exchanged: the target believes the new one alone at
/// the end.
pub(crate) fn a_renewed_certificate_is_shown() {
    run(async {
        let world = World::start().await;
        let (old, new) = (world.path("old"), world.path("new"));
        let client = world.path("c/t");
        std::fs::create_dir_all(&client).unwrap();
        for dir in [&old, &new] {
            std::fs::create_dir_all(dir).unwrap();
            crate::objects::certificates(dir);
        }
        let both = [&old, &new].map(|dir| std::fs::read_to_string(dir.join("ca.crt")).unwrap());
        let put = |to: PathBuf, contents: &str| {
            // As identity does: whole files, exchanged by one rename each.
            let next = to.with_extension("next");
            std::fs::write(&next, contents).unwrap();
            std::fs::rename(next, to).unwrap();
        };
        let show = |dir: &std::path::Path| {
            put(client.join("ca-cert.pem"), &both.concat());
            for (from, to) in [
                ("client.crt", "client-cert.pem"),
                ("client.key", "client-key.pem"),
            ] {
                put(
                    client.join(to),
                    &std::fs::read_to_string(dir.join(from)).unwrap(),
                );
            }
        };
        let server = |dir: &std::path::Path, believes: &str| {
            put(dir.join("ca-cert.pem"), believes);
            for (from, to) in [
                ("tls.crt", "server-cert.pem"),
                ("tls.key", "server-key.pem"),
            ] {
                std::fs::copy(dir.join(from), dir.join(to)).unwrap();
            }
        };
        server(&old, &both.concat());
        server(&new, &both[1]);
        show(&old);
        let image = world.raw("a.img", 4 * MIB);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let target = |dir: &std::path::Path| {
            let creds = format!(
                "tls-creds-x509,id=t,endpoint=server,verify-peer=on,dir={}",
                dir.display()
            );
            let at = format!("addr.type=inet,addr.host=127.0.0.1,addr.port={port}");
            let child = std::process::Command::new("qemu-storage-daemon")
                .args(["--object", &creds])
                .args(["--object", "authz-simple,id=a,identity=CN=client"])
                .arg("--blockdev")
                .arg(format!("file,node-name=d,filename={}", image.display()))
                .arg("--nbd-server")
                .arg(format!("{at},tls-creds=t,tls-authz=a,max-connections=0"))
                .args(["--export", "nbd,id=e,node-name=d,name=vol,writable=on"])
                .spawn();
            crate::world::Ended(child.unwrap())
        };
        let before = target(&old);
        let source = Kind::Nbd(NbdSource {
            address: Some(nbd_source::Address::Tcp(TcpAddress {
                ip: "127.0.0.1".into(),
                port: port.into(),
            })),
            export_name: "vol".into(),
            tls: Some(Tls {
                credentials: "t".into(),
                server_name: String::new(),
            }),
            reconnect_delay_seconds: 60,
        });
        let begun = Instant::now();
        while let Err(why) = world.source("a", source.clone(), UUID).await {
            assert_eq!(why.code(), Code::Unavailable, "{why}");
            assert!(begun.elapsed() < Duration::from_secs(30), "{why}");
        }
        let device = world.device("d", "sources/a", block()).await.unwrap();
        let disk = std::sync::Arc::new(Disk::open(&path_of(&device)));
        disk.write(0).unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (disk, stop) = (disk.clone(), stop.clone());
            move || {
                let mut n = 0;
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    n = n % 500 + 1;
                    disk.write(n).unwrap();
                    disk.sync().unwrap();
                }
            }
        });
        show(&new);
        let begun = Instant::now();
        while !world.log().contains("the client shows the certificate") {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", world.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        drop(before);
        let _after = target(&new);
        let held = disk.clone();
        // It waits for the connection, which needs the new certificate.
        let written =
            tokio::task::spawn_blocking(move || held.write(900).and_then(|()| held.sync()));
        written.await.unwrap().unwrap();
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        writer.join().unwrap();
        assert!(disk.holds(0).unwrap() && disk.holds(900).unwrap());
        // One client, one set of credentials.
        let daemon = world
            .engine_client()
            .list(Some("card"), soon())
            .await
            .unwrap()
            .remove(0);
        let qmp = qemu::Qmp::connect(daemon.qmp_card(), soon()).await.unwrap();
        let nodes = qemu::commands::QueryNamedBlockNodes { flat: Some(true) };
        let nodes = qmp.execute(&nodes, soon()).await.unwrap();
        let disks = nodes
            .iter()
            .filter(|node| node.node_name.starts_with("disk"));
        assert_eq!(disks.count(), 1, "{nodes:?}");
        drop((qmp, disk));
        world.delete_device(NAME, false).await.unwrap();
        world.delete_source("sources/a").await.unwrap();
        world.sweep().await;
    });
}

pub(crate) fn limits_hold_at_once() {
    run(async {
        let world = World::start().await;
        let mut nulls = NullVolumeServiceClient::new(world.channel());
        let volume = opi::NullVolume {
            block_size: 512,
            blocks_count: 1 << 15,
            ..Default::default()
        };
        let request = opi::CreateNullVolumeRequest {
            null_volume: Some(volume),
            null_volume_id: "n".into(),
        };
        nulls.create_null_volume(request).await.unwrap();
        let device = world.device("d", "nullVolumes/n", block()).await.unwrap();
        let disk = Disk::open(&path_of(&device));
        let time = |count: u64| {
            let begun = Instant::now();
            (0..count).for_each(|n| disk.write(n).unwrap());
            begun.elapsed()
        };
        let limit = async |iops: u64| {
            let limits = Limits {
                iops,
                ..Limits::default()
            };
            let request = SetLimitsRequest {
                name: "nullVolumes/n".into(),
                limits: Some(limits),
            };
            world.card().set_limits(request).await.unwrap();
        };
        let free = time(100);
        limit(50).await;
        let slow = time(100);
        assert!(
            slow > Duration::from_millis(1500),
            "100 writes at 50 a second took {slow:?}"
        );
        assert!(slow > 3 * free, "{slow:?}, without limit {free:?}");
        // Not forgotten by a restart of the daemon.
        let daemon = world
            .engine_client()
            .list(Some("card"), soon())
            .await
            .unwrap()
            .remove(0);
        assert!(
            serde_json::to_string(&daemon.recipe)
                .unwrap()
                .contains("\"iops-total\":50")
        );
        limit(0).await;
        let again = time(100);
        assert!(again < slow / 2, "{again:?}, with limit {slow:?}");
        drop(disk);
        world.delete_device(NAME, false).await.unwrap();
        let delete = opi::DeleteNullVolumeRequest {
            name: "nullVolumes/n".into(),
            allow_missing: false,
        };
        nulls.delete_null_volume(delete).await.unwrap();
        world.sweep().await;
    });
}

pub(crate) fn vhost_user_and_same_node() {
    run(async {
        let world = World::start().await;
        // A back end's daemon, whose node is called "top".
        let image = world.raw("a.img", 4 * MIB);
        let recipe = Recipe::default()
            .then(&BlockdevAdd(Node::file("top", &image).direct()))
            .unwrap();
        let put = Put {
            id: "v-a".into(),
            owner: "backend".into(),
            recipe,
        };
        let before = world.engine_client().put(&put, soon()).await.unwrap();
        let engine = Kind::Engine(EngineSource {
            engine_id: "v-a".into(),
            node_name: "here".into(),
        });
        world.source("a", engine, UUID).await.unwrap();
        let device = world.device("d", "sources/a", block()).await.unwrap();
        let disk = Disk::open(&path_of(&device));
        (0..16).for_each(|n| disk.write(n).unwrap());
        disk.sync().unwrap();
        drop(disk);
        let file = Disk::open(&image);
        assert!((0..16).all(|n| file.holds(n).unwrap()));
        let now = world
            .engine_client()
            .get("v-a", soon())
            .await
            .unwrap()
            .unwrap();
        assert_eq!((now.epoch, now.owner.as_str()), (before.epoch, "backend"));
        world.delete_device(NAME, false).await.unwrap();

        let device = world.device("d", "sources/a", vhost_user()).await.unwrap();
        let socket = path_of(&device);
        assert_eq!(
            (socket.clone(), device.serial.as_str()),
            (world.path("x").join(format!("{UUID}.sock")), "")
        );
        let guest = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        while !world.get_device(NAME).await.unwrap().in_use {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(
            world.delete_device(NAME, false).await.unwrap_err().code(),
            Code::FailedPrecondition
        );
        drop(guest);
        while world.get_device(NAME).await.unwrap().in_use {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        world.delete_device(NAME, false).await.unwrap();
        world.delete_source("sources/a").await.unwrap();
        // The back end's daemon has its own recipe again, and was never touched.
        let after = world
            .engine_client()
            .get("v-a", soon())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (after.recipe, after.epoch),
            (put.recipe, now_epoch(&world).await)
        );
        world.sweep().await;
        world.engine_client().remove("v-a", soon()).await.unwrap();
    });
}

/// Without a guest: qemu-storage-daemon dies of it while the socket never had a client.
pub(crate) fn vhost_user_grows_before_a_guest_came() {
    run(async {
        let world = World::start().await;
        let image = world.raw("a.img", 4 * MIB);
        world.source("a", file(&image), UUID).await.unwrap();
        world.device("d", "sources/a", vhost_user()).await.unwrap();
        let id = format!("c-{UUID}");
        let grow = async |mib: u64| {
            let options = std::fs::File::options().write(true).open(&image);
            options.unwrap().set_len(mib * MIB).unwrap();
            let request = ResizeRequest {
                name: "sources/a".to_owned(),
                size_bytes: mib * MIB,
            };
            let before = world.engine_client().get(&id, soon()).await.unwrap();
            world.card().resize(request).await.unwrap();
            let device = world.get_device(NAME).await.unwrap().device.unwrap();
            assert_eq!(device.size_bytes, mib * MIB);
            let after = world.engine_client().get(&id, soon()).await.unwrap();
            assert_eq!(before.unwrap().epoch, after.unwrap().epoch, "it died");
        };
        grow(5).await;
        // In the first moment of its next lives, also while nobody was there to see its start.
        for mib in [6, 7] {
            world.kill_bridge();
            killed(&world, &id).await;
            world.start_bridge(None);
            world.answers().await;
            grow(mib).await;
        }
        for mib in [8, 9, 10] {
            killed(&world, &id).await;
            grow(mib).await;
        }
        let socket = world.path("x").join(format!("{UUID}.sock"));
        let _guest = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        grow(11).await;
        world.delete_device(NAME, true).await.unwrap();
        world.delete_source("sources/a").await.unwrap();
        world.sweep().await;
    });
}

async fn now_epoch(world: &World) -> Option<String> {
    world
        .engine_client()
        .get("v-a", soon())
        .await
        .unwrap()
        .unwrap()
        .epoch
}
