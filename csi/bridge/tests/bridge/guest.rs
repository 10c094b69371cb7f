//! The functions of a host that runs: Debian's kernel in a QEMU machine, which writes while the card plugs, grows and unplugs its disks,
//! and while their daemons die.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use lab::host_vm::{GuestTask, HostVm, HostVmSpec};
use proto::card::v1::{ResizeRequest, WatchRequest, event};
use proto::opi::storage::v1 as opi;
use proto::opi::storage::v1::frontend_nvme_service_client::FrontendNvmeServiceClient;
use proto::opi::storage::v1::frontend_virtio_blk_service_client::FrontendVirtioBlkServiceClient;
use proto::volume::v1::device::Address;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::beside::killed;
use crate::run;
use crate::vm::{
    CONTROLLER, NAMESPACE, controller, endpoint, free, inventory, namespace, subsystem,
};
use crate::world::{MIB, UUID, World, file, soon};

const SERIAL: &str = "NOT3QEE5VUI5DAFUADAE";
const SOURCE: &str = "sources/a";
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// What a writer writes again and again: so many blocks of 64 KiB.
const BLOCKS: u64 = 64;
const BLOCK: u64 = 64 << 10;

/// Calls of the guest block.
pub(crate) fn blocking<T>(call: impl FnOnce() -> anyhow::Result<T>) -> T {
    tokio::task::block_in_place(call).unwrap_or_else(|why| panic!("{why:#}"))
}

/// Writes blocks of noise past the guest's cache, each with an fsync; says a number for each that is on the disk.
pub(crate) struct Writer<'vm> {
    vm: &'vm HostVm,
    task: GuestTask<'vm>,
    noise: String,
    disk: String,
    written: u64,
}

impl<'vm> Writer<'vm> {
    pub(crate) fn start(vm: &'vm HostVm, disk: &str, noise: &str) -> Self {
        let task = blocking(|| {
            vm.run(&format!(
                "dd if=/dev/urandom of=/run/{noise} bs=64k count={BLOCKS} 2>/dev/null"
            ))?;
            // Without the test for a block device dd would make a file in /dev once the disk has gone.
            vm.start(&format!(
                "i=0; while [ -b /dev/{disk} ]; do n=$((i % {BLOCKS}))
                     dd if=/run/{noise} of=/dev/{disk} bs=64k count=1 skip=$n seek=$n oflag=direct conv=fsync 2>/run/{noise}.why || break
                     i=$((i + 1)); echo $i
                 done; [ -b /dev/{disk} ] || echo gone; grep dd: /run/{noise}.why"
            ))
        });
        let (noise, disk) = (noise.to_owned(), disk.to_owned());
        let mut writer = Writer {
            vm,
            task,
            noise,
            disk,
            written: 0,
        };
        writer.goes_on();
        writer
    }

    /// Five more writes.
    pub(crate) fn goes_on(&mut self) {
        for _ in 0..5 {
            let line = blocking(|| self.task.line(LIMIT)).expect("the writer has ended");
            self.written = line
                .parse()
                .unwrap_or_else(|_| panic!("the writer says {line:?}"));
        }
    }

    /// Waits for its end, or ends it; gives its last words and its noise.
    pub(crate) fn end(self, kill: bool) -> (String, Noise) {
        let (vm, task) = (self.vm, self.task);
        let ended = blocking(|| {
            if kill {
                task.kill()?;
            }
            task.finish(LIMIT)
        });
        let mut numbers = ended.out.lines().filter_map(|line| line.parse().ok());
        let noise = noise(vm, &self.noise, numbers.next_back().unwrap_or(self.written));
        if !kill {
            // dd may have made a file of the name in the moment after, and the next disk would get no node.
            let disk = self.disk;
            blocking(|| vm.run(&format!("! [ -b /dev/{disk} ] && rm -f /dev/{disk}")));
        }
        (ended.out, noise)
    }

    /// One that is never answered again: what it was told to be written.
    fn abandoned(self) -> Noise {
        noise(self.vm, &self.noise, self.written)
    }
}

fn noise(vm: &HostVm, name: &str, written: u64) -> Noise {
    let written = written.min(BLOCKS);
    let script = format!("dd if=/run/{name} bs=64k count={written} 2>/dev/null | sha256sum");
    let sum = blocking(|| vm.run(&script));
    Noise { sum, written }
}

/// A writer's end whose disk was taken away: amid a write it is an error, between two the disk is not there any more.
fn saw_it_go(why: &str) {
    assert!(
        why.lines()
            .any(|line| line == "gone" || line.starts_with("dd:")),
        "the writer saw neither an error nor that the disk has gone: {why}"
    );
}

/// What has to be at a disk's beginning.
pub(crate) struct Noise {
    sum: String,
    written: u64,
}

impl Noise {
    pub(crate) fn is_in_guest(&self, vm: &HostVm, disk: &str) {
        let script = format!(
            "echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/{disk} bs=64k count={} 2>/dev/null | sha256sum",
            self.written
        );
        assert_eq!(blocking(|| vm.run(&script)), self.sum, "in the guest");
    }

    /// `copy` is a file that may be made.
    pub(crate) fn is_in_image(&self, image: &Path, copy: &Path) {
        let bytes = usize::try_from(self.written * BLOCK).unwrap();
        let mut head = vec![0; bytes];
        std::fs::File::open(image)
            .unwrap()
            .read_exact(&mut head)
            .unwrap();
        std::fs::write(copy, head).unwrap();
        let said = blocking(|| lab::run(&["sha256sum", &copy.display().to_string()]));
        assert_eq!(
            said.split(' ').next(),
            self.sum.split(' ').next(),
            "in the image"
        );
    }
}

async fn kill_daemon(world: &World) {
    let daemons = world.engine_client().list(Some("card"), soon()).await;
    let pid = i32::try_from(daemons.unwrap().remove(0).pid.unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
}

async fn resize(world: &World, image: &Path, size: u64) -> Result<u64, Status> {
    let mut options = std::fs::File::options();
    let image = options.write(true).open(image).unwrap();
    image.set_len(size).unwrap();
    let request = ResizeRequest {
        name: SOURCE.into(),
        size_bytes: size,
    };
    let resized = world.card().resize(request).await?;
    Ok(resized.into_inner().size_bytes)
}

pub(crate) fn size(vm: &HostVm, disk: &str) -> u64 {
    let sectors = blocking(|| vm.run(&format!("cat /sys/block/{disk}/size")));
    sectors.parse::<u64>().unwrap() * 512
}

async fn plug_nvme(
    world: &World,
    vm: &HostVm,
    nvme: &mut FrontendNvmeServiceClient<Channel>,
) -> String {
    nvme.create_nvme_namespace(namespace(SOURCE)).await.unwrap();
    let device = world.get_device(NAMESPACE).await.unwrap().device.unwrap();
    assert_eq!(device.address, Some(Address::PciAddress(vm.address(1))));
    assert_eq!(device.serial, SERIAL);
    let disk = blocking(|| vm.disk_with_serial(SERIAL, LIMIT));
    let place = blocking(|| vm.run("readlink -f /sys/class/nvme/nvme*/device"));
    assert!(place.ends_with(&vm.address(1)), "{place}");
    assert_eq!(size(vm, &disk), device.size_bytes);
    disk
}

async fn unplug_nvme(nvme: &mut FrontendNvmeServiceClient<Channel>) {
    let delete = opi::DeleteNvmeNamespaceRequest {
        name: NAMESPACE.into(),
        allow_missing: false,
    };
    nvme.delete_nvme_namespace(delete).await.unwrap();
}

/// An NVMe disk: it comes, its card's daemon dies, it can't grow, it goes, it comes again and is larger. Gives what is on it.
async fn nvme(world: &World, vm: &HostVm, image: &Path) -> Noise {
    let mut nvme = FrontendNvmeServiceClient::new(world.channel());
    subsystem(&mut nvme).await;
    nvme.create_nvme_controller(controller(1)).await.unwrap();
    let disk = plug_nvme(world, vm, &mut nvme).await;
    let mut writer = Writer::start(vm, &disk, "nvme");
    // The guest waits, and sees no error.
    kill_daemon(world).await;
    writer.goes_on();
    // QEMU's NVMe tells a guest its size once: the bridge says so, and what to do.
    let refused = resize(world, image, 16 * MIB).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    assert!(
        refused.message().contains("take the namespace away"),
        "{refused}"
    );
    writer.goes_on();
    assert_eq!(size(vm, &disk), 8 * MIB);
    unplug_nvme(&mut nvme).await;
    let (why, noise) = writer.end(false);
    saw_it_go(&why);
    assert_eq!(free(&inventory(world).await.counts), Some((4, 3)));
    assert_eq!(resize(world, image, 16 * MIB).await.unwrap(), 16 * MIB);
    let disk = plug_nvme(world, vm, &mut nvme).await;
    assert_eq!(size(vm, &disk), 16 * MIB);
    noise.is_in_guest(vm, &disk);
    let mut writer = Writer::start(vm, &disk, "again");
    writer.goes_on();
    let (_, noise) = writer.end(true);
    noise.is_in_guest(vm, &disk);
    unplug_nvme(&mut nvme).await;
    let delete = opi::DeleteNvmeControllerRequest {
        name: CONTROLLER.into(),
        allow_missing: false,
    };
    nvme.delete_nvme_controller(delete).await.unwrap();
    let delete = opi::DeleteNvmeSubsystemRequest {
        name: "nvmeSubsystems/s".into(),
        allow_missing: false,
    };
    nvme.delete_nvme_subsystem(delete).await.unwrap();
    noise
}

const VIRTIO: &str = "virtioBlks/v";

async fn plug_virtio(world: &World, vm: &HostVm, size_now: u64) -> String {
    let mut blks = FrontendVirtioBlkServiceClient::new(world.channel());
    let blk = opi::CreateVirtioBlkRequest {
        virtio_blk: Some(opi::VirtioBlk {
            pcie_id: Some(endpoint(0)),
            volume_name_ref: SOURCE.into(),
            ..Default::default()
        }),
        virtio_blk_id: "v".into(),
    };
    blks.create_virtio_blk(blk).await.unwrap();
    is_virtio(world, vm, size_now).await
}

async fn is_virtio(world: &World, vm: &HostVm, size_now: u64) -> String {
    let device = world.get_device(VIRTIO).await.unwrap().device.unwrap();
    assert_eq!(device.address, Some(Address::PciAddress(vm.address(0))));
    let disk = blocking(|| vm.virtio_disk(0, LIMIT));
    assert_eq!(size(vm, &disk), size_now);
    disk
}

async fn unplug_virtio(world: &World) -> Result<(), Status> {
    let mut blks = FrontendVirtioBlkServiceClient::new(world.channel());
    let delete = opi::DeleteVirtioBlkRequest {
        name: VIRTIO.into(),
        allow_missing: false,
    };
    blks.delete_virtio_blk(delete).await.map(drop)
}

/// The same volume by vhost-user-blk: it comes with its bytes, grows, its daemon dies while nothing is asked of it, it goes.
async fn virtio_blk(world: &World, vm: &HostVm, image: &Path, before: &Noise) {
    let disk = plug_virtio(world, vm, 16 * MIB).await;
    let cache = blocking(|| vm.run(&format!("cat /sys/block/{disk}/queue/write_cache")));
    assert_eq!(cache, "write back", "else the guest never flushes");
    before.is_in_guest(vm, &disk);
    let mut writer = Writer::start(vm, &disk, "virtio");
    assert_eq!(resize(world, image, 24 * MIB).await.unwrap(), 24 * MIB);
    blocking(|| {
        lab::until("the guest to see the new size", LIMIT, || {
            let sectors = vm.run(&format!("cat /sys/block/{disk}/size"))?;
            Ok((sectors.parse::<u64>()? * 512 == 24 * MIB).then_some(()))
        })
    });
    writer.goes_on();
    let (_, noise) = writer.end(true);
    // The guest lets go of the dead disk, and has it anew.
    killed(world, &format!("c-{UUID}")).await;
    let begun = tokio::time::Instant::now();
    while let Err(why) = world.get_device(VIRTIO).await {
        assert!(
            why.message().contains("has died") || why.message().contains("is being made"),
            "{why}"
        );
        assert!(begun.elapsed() < LIMIT, "{why}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let disk = is_virtio(world, vm, 24 * MIB).await;
    noise.is_in_guest(vm, &disk);
    let mut writer = Writer::start(vm, &disk, "anew");
    writer.goes_on();
    unplug_virtio(world).await.unwrap();
    let (why, noise) = writer.end(false);
    saw_it_go(&why);
    noise.is_in_image(image, &world.path("copy"));
}

/// Its daemon dies under a writer, whose requests nobody answers any more: that is said, and the machine's end ends it.
async fn lost(world: &World, vm: HostVm, image: &Path) {
    let disk = plug_virtio(world, &vm, 24 * MIB).await;
    let mut events = world.card().watch(WatchRequest {}).await.unwrap();
    let mut writer = Writer::start(&vm, &disk, "lost");
    writer.goes_on();
    kill_daemon(world).await;
    let told = async {
        while let Ok(Some(event)) = events.get_mut().message().await {
            if let Some(event::Kind::EngineRestarted(restarted)) = event.kind {
                return restarted.lost;
            }
        }
        panic!("the watch ended");
    };
    let told = tokio::time::timeout_at(soon(), told).await.unwrap();
    assert_eq!(told, [VIRTIO]);
    let seen = world.get_device(VIRTIO).await.unwrap_err();
    assert_eq!(seen.code(), Code::FailedPrecondition);
    assert!(seen.message().contains("has died"), "{seen}");
    let held = unplug_virtio(world).await.unwrap_err();
    assert_eq!(held.code(), Code::Aborted);
    assert!(held.message().contains("restart the machine"), "{held}");
    let noise = writer.abandoned();
    drop(vm);
    unplug_virtio(world).await.unwrap();
    noise.is_in_image(image, &world.path("copy"));
}

pub(crate) fn disks_come_grow_and_go_while_it_writes() {
    run(async {
        let home = tempfile::Builder::new()
            .prefix("obv")
            .tempdir_in("/tmp")
            .unwrap();
        let vm = blocking(|| HostVm::boot(HostVmSpec::new(home.path())));
        let monitor = vm.card_monitor().display().to_string();
        let ports = vm.functions().join(",");
        let world = World::with(&["--vm-monitor", &monitor, "--vm-ports", &ports]).await;
        assert_eq!(free(&inventory(&world).await.counts), Some((4, 4)));
        let image = world.raw("a.img", 8 * MIB);
        world.source("a", file(&image), UUID).await.unwrap();
        let noise = nvme(&world, &vm, &image).await;
        noise.is_in_image(&image, &world.path("copy"));
        virtio_blk(&world, &vm, &image, &noise).await;
        assert_eq!(free(&inventory(&world).await.counts), Some((4, 4)));
        lost(&world, vm, &image).await;
        world.delete_source(SOURCE).await.unwrap();
        world.sweep().await;
    });
}
