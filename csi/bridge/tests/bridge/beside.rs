//! A vhost-user-blk socket beside a block device: both are exports of one daemon.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use engine::{Put, Recipe};
use lab::host_vm::{HostVm, HostVmSpec};
use proto::card::v1::ResizeRequest;
use proto::volume::v1::exposure::Kind as Exposed;
use proto::volume::v1::source::Kind;
use proto::volume::v1::{EngineSource, ExposureKind, LocalBlockDevice, VhostUserBlk};
use qemu::Qmp;
use qemu::commands::{
    BlockdevAdd, ChardevAdd, ChardevRemove, ChardevSocket, DeviceAdd, DeviceDel, Node,
};
use serde_json::json;
use tokio::time::Instant;
use tonic::Code;

use crate::guest::{LIMIT, Writer, blocking, size};
use crate::run;
use crate::world::{Disk, Ended, MIB, UUID, World, file, path_of, soon};

const NAME: &str = "localDevices/d";

pub(crate) fn both(queues: u32) -> Exposed {
    Exposed::LocalBlockDevice(LocalBlockDevice {
        socket: Some(VhostUserBlk { queues }),
    })
}

/// The socket of the only volume, and what may be seen of it: mode, user and group of it and of its directory.
fn socket(world: &World) -> PathBuf {
    world.path("x").join(format!("{UUID}.vhost/disk.sock"))
}

fn about(path: &Path) -> Option<(u32, u32, u32)> {
    let about = std::fs::symlink_metadata(path).ok()?;
    Some((about.mode() & 0o7777, about.uid(), about.gid()))
}

/// Waits until exactly the group may connect.
async fn is_given(world: &World) {
    let socket = socket(world);
    let deadline = soon();
    while about(&socket) != Some((0o660, 0, 107)) {
        assert!(
            Instant::now() < deadline,
            "{:?}\n{}",
            about(&socket),
            world.log()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let directory = socket.parent().unwrap();
    assert_eq!(about(directory), Some((0o750, 0, 107)));
    for (id, may) in [("107", true), ("108", false)] {
        // By the open directory, as through a mount: those above are root's alone.
        let mut test = Command::new("setpriv");
        test.args(["--reuid", id, "--regid", id, "--clear-groups"]);
        test.args(["test", "-w", "/proc/self/fd/0/disk.sock"]);
        let opened: OwnedFd = File::open(directory).unwrap().into();
        let status = test.stdin(opened).stderr(Stdio::null()).status();
        assert_eq!(
            status.expect("run `make setup`").success(),
            may,
            "group {id}"
        );
    }
}

/// Somebody in another network namespace, as a pod's machine is.
fn guest(world: &World) -> Ended {
    let script = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new($ARGV[0]) or die $!; $| = 1; print 'on'; sleep 600";
    let mut guest = Command::new("unshare");
    guest
        .args(["--net", "perl", "-e", script])
        .arg(socket(world));
    let mut guest = Ended(guest.stdout(Stdio::piped()).spawn().unwrap());
    let mut said = [0; 2];
    guest
        .0
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    guest
}

async fn used(world: &World, yes: bool) {
    let deadline = soon();
    while world.get_device(NAME).await.unwrap().in_use != yes {
        assert!(Instant::now() < deadline, "in use: {}", !yes);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn daemon(world: &World, id: &str) -> (Option<String>, u32) {
    let daemon = world
        .engine_client()
        .get(id, soon())
        .await
        .unwrap()
        .unwrap();
    (daemon.epoch, daemon.pid.unwrap_or_default())
}

pub(crate) async fn killed(world: &World, id: &str) {
    let (epoch, pid) = daemon(world, id).await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
    let deadline = soon();
    loop {
        let now = daemon(world, id).await;
        if now.0 != epoch && now.1 != 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{id} is not started again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn resized(world: &World, image: &Path, size: u64) {
    let image = File::options().write(true).open(image).unwrap();
    image.set_len(size).unwrap();
    let name = "sources/a".to_owned();
    let request = ResizeRequest {
        name,
        size_bytes: size,
    };
    world.card().resize(request).await.unwrap();
    let device = world.get_device(NAME).await.unwrap().device.unwrap();
    assert_eq!(device.size_bytes, size);
}

pub(crate) fn only_the_group_connects_whatever_dies() {
    run(async {
        let world = World::start().await;
        let image = world.raw("a.img", 4 * MIB);
        let recipe = Recipe::default();
        let recipe = recipe
            .then(&BlockdevAdd(Node::file("top", &image).direct()))
            .unwrap();
        let put = Put {
            id: "v-a".into(),
            owner: "backend".into(),
            recipe,
        };
        let engine = Kind::Engine(EngineSource {
            engine_id: "v-a".into(),
            node_name: "here".into(),
        });
        // A daemon of the card's, and one of a back end's.
        for (source, id) in [
            (file(&image), format!("c-{UUID}")),
            (engine, "v-a".to_owned()),
        ] {
            let backend = id == "v-a";
            if backend {
                world.engine_client().put(&put, soon()).await.unwrap();
            }
            let now = std::fs::metadata(&image).unwrap().len();
            world.source("a", source, UUID).await.unwrap();
            let device = world.device("d", "sources/a", both(2)).await.unwrap();
            assert_eq!(device.kind(), ExposureKind::LocalBlockDevice);
            assert_eq!(Path::new(&device.vhost_user_socket), socket(&world));
            is_given(&world).await;
            assert_eq!(
                world.device("d", "sources/a", both(2)).await.unwrap(),
                device
            );
            let other = world.device("d", "sources/a", both(3)).await.unwrap_err();
            assert_eq!(other.code(), Code::AlreadyExists, "{other}");
            assert_eq!(
                world.get_device(NAME).await.unwrap().device,
                Some(device.clone())
            );

            // While no guest ever came QEMU would die of it.
            let before = daemon(&world, &id).await;
            if !backend {
                resized(&world, &image, now + MIB).await;
            }
            let disk = Disk::open(&path_of(&device));
            disk.write(3).unwrap();
            disk.sync().unwrap();
            assert_eq!(daemon(&world, &id).await, before, "nobody died");
            drop(disk);

            let held = guest(&world);
            used(&world, true).await;
            let refused = world.delete_device(NAME, false).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition);
            assert!(refused.message().contains("has a guest"), "{refused}");
            drop(held);
            used(&world, false).await;

            killed(&world, &id).await;
            is_given(&world).await;
            world.kill_bridge();
            killed(&world, &id).await;
            assert_ne!(
                about(&socket(&world)),
                Some((0o660, 0, 107)),
                "nobody was there"
            );
            world.start_bridge(None);
            world.answers().await;
            is_given(&world).await;
            drop(guest(&world));
            used(&world, false).await;
            let device = world.get_device(NAME).await.unwrap().device.unwrap();
            assert!(Disk::open(&path_of(&device)).holds(3).unwrap());

            // By force also from a guest.
            let _held = guest(&world);
            used(&world, true).await;
            world.delete_device(NAME, true).await.unwrap();
            assert!(!socket(&world).parent().unwrap().exists());
            world.delete_source("sources/a").await.unwrap();
            if backend {
                let after = world
                    .engine_client()
                    .get(&id, soon())
                    .await
                    .unwrap()
                    .unwrap();
                assert_eq!(after.recipe, put.recipe);
            }
            world.sweep().await;
        }
        world.engine_client().remove("v-a", soon()).await.unwrap();
    });
}

/// As the sidecar has libvirt plug it: the guest is to flush by itself, and QEMU does not connect again.
async fn plug(vm: &HostVm, socket: &Path) -> Qmp {
    let qmp = Qmp::connect(vm.card_monitor(), soon()).await.unwrap();
    let add = ChardevAdd {
        id: "c".into(),
        backend: ChardevSocket {
            path: socket.to_owned(),
            server: false,
            reconnect_ms: 0,
        },
    };
    qmp.execute(&add, soon()).await.unwrap();
    let add = DeviceAdd {
        driver: "vhost-user-blk-pci".into(),
        id: "d".into(),
        bus: vm.functions().first().cloned(),
        properties: [
            ("chardev".to_owned(), json!("c")),
            ("num-queues".to_owned(), json!(2)),
            ("config-wce".to_owned(), json!(false)),
        ]
        .into_iter()
        .collect(),
    };
    qmp.execute(&add, soon()).await.unwrap();
    qmp
}

async fn unplug(qmp: &Qmp) {
    let mut events = qmp.events();
    qmp.execute(&DeviceDel { id: "d".into() }, soon())
        .await
        .unwrap();
    let gone = events.wait_for(|event| event.is("DEVICE_DELETED", "device", "d"));
    tokio::time::timeout_at(soon(), gone)
        .await
        .unwrap()
        .unwrap();
    qmp.execute(&ChardevRemove { id: "c".into() }, soon())
        .await
        .unwrap();
}

pub(crate) fn a_guest_uses_the_socket_in_the_devices_place() {
    run(async {
        let home = tempfile::Builder::new()
            .prefix("obv")
            .tempdir_in("/tmp")
            .unwrap();
        let vm = blocking(|| HostVm::boot(HostVmSpec::new(home.path())));
        let world = World::start().await;
        let image = world.raw("a.img", 8 * MIB);
        world.source("a", file(&image), UUID).await.unwrap();
        let device = world.device("d", "sources/a", both(2)).await.unwrap();
        // Written through the block device, read by the guest.
        let disk = Disk::open(&path_of(&device));
        (0..64).for_each(|n| disk.write(n).unwrap());
        disk.sync().unwrap();
        drop(disk);
        let qmp = plug(&vm, Path::new(&device.vhost_user_socket)).await;
        let name = blocking(|| vm.virtio_disk(0, LIMIT));
        let cache = blocking(|| vm.run(&format!("cat /sys/block/{name}/queue/write_cache")));
        assert_eq!(cache, "write back", "else the guest never flushes");
        let sum = |path: &Path| {
            let path = path.display();
            let script =
                format!("dd if={path} bs=4k count=64 iflag=direct 2>/dev/null | sha256sum");
            let said = blocking(|| lab::run(&["sh", "-c", &script]));
            said.trim().to_owned()
        };
        let read = format!("dd if=/dev/{name} bs=4k count=64 2>/dev/null | sha256sum");
        assert_eq!(blocking(|| vm.run(&read)), sum(&path_of(&device)));

        let mut writer = Writer::start(&vm, &name, "noise");
        resized(&world, &image, 16 * MIB).await;
        blocking(|| {
            lab::until("the guest to see the new size", LIMIT, || {
                let sectors = vm.run(&format!("cat /sys/block/{name}/size"))?;
                Ok((sectors.parse::<u64>()? * 512 == 16 * MIB).then_some(()))
            })
        });
        writer.goes_on();
        let (_, noise) = writer.end(true);
        assert_eq!(size(&vm, &name), 16 * MIB);
        let refused = world.delete_device(NAME, false).await.unwrap_err();
        assert!(refused.message().contains("has a guest"), "{refused}");

        // The daemon dies: the guest has lost the disk. Who is plugged anew, as a machine that is started again, has it.
        killed(&world, &format!("c-{UUID}")).await;
        is_given(&world).await;
        used(&world, false).await;
        unplug(&qmp).await;
        drop(qmp);
        let qmp = plug(&vm, &socket(&world)).await;
        let name = blocking(|| vm.virtio_disk(0, LIMIT));
        assert_eq!(size(&vm, &name), 16 * MIB);
        noise.is_in_guest(&vm, &name);
        used(&world, true).await;
        unplug(&qmp).await;
        used(&world, false).await;
        // Written by the guest, read through the block device.
        let device = world.get_device(NAME).await.unwrap().device.unwrap();
        noise.is_in_image(&path_of(&device), &world.path("copy"));
        world.delete_device(NAME, false).await.unwrap();
        world.delete_source("sources/a").await.unwrap();
        noise.is_in_image(&image, &world.path("copy"));
        world.sweep().await;
    });
}
