//! The functions of a QEMU machine. It has its firmware and no system: devices get their addresses, and are never let go of.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use proto::card::v1::{FunctionsChanged, InventoryRequest, InventoryResponse, WatchRequest, event};
use proto::opi::storage::v1 as opi;
use proto::opi::storage::v1::frontend_nvme_service_client::FrontendNvmeServiceClient;
use proto::opi::storage::v1::frontend_virtio_blk_service_client::FrontendVirtioBlkServiceClient;
use proto::volume::v1::device::Address;
use proto::volume::v1::{ExposureKind, FunctionCount};
use tonic::Code;
use tonic::transport::Channel;

use crate::faults::{starts, until};
use crate::run;
use crate::world::{Ended, MIB, UUID, World, file};

const NAMESPACE: &str = "nvmeSubsystems/s/nvmeNamespaces/n";
const CONTROLLER: &str = "nvmeSubsystems/s/nvmeControllers/c";

fn machine(monitor: &std::path::Path) -> Ended {
    let mut command = machine_command(monitor, 64);
    command.stdin(Stdio::null());
    Ended(
        command
            .spawn()
            .expect("qemu-system-x86 is missing: run `make setup`"),
    )
}

fn machine_command(monitor: &std::path::Path, megabytes: u32) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    let memory = format!("memory-backend-memfd,id=m,size={megabytes}M,share=on");
    command.args([
        "-machine",
        "q35,accel=tcg",
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
    ]);
    command.args([
        "-m",
        &megabytes.to_string(),
        "-object",
        &memory,
        "-numa",
        "node,memdev=m",
    ]);
    for n in 0..2 {
        command
            .arg("-device")
            .arg(format!("pcie-root-port,id=rp{n},chassis={n},slot={n}"));
    }
    command
        .arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", monitor.display()));
    command
}

/// A machine with Debian's kernel and a shell on its serial line.
struct Guest {
    _machine: Ended,
    commands: std::process::ChildStdin,
    answers: std::io::BufReader<std::process::ChildStdout>,
    count: u32,
}

impl Guest {
    /// `kernel` is the directory of an unpacked `linux-image-…-cloud-amd64`.
    fn boot(kernel: &std::path::Path, home: &std::path::Path, monitor: &std::path::Path) -> Self {
        let pack = format!(
            "set -e; cd {home}; mkdir -p i/bin i/proc i/sys i/dev; cp /bin/busybox i/bin/; \
             for m in virtio/virtio_ring virtio/virtio virtio/virtio_pci_modern_dev virtio/virtio_pci_legacy_dev virtio/virtio_pci \
             block/virtio_blk; do cp {kernel}/lib/modules/*/kernel/drivers/$m.ko i/; done; \
             printf '#!/bin/busybox sh\n/bin/busybox --install -s /bin\nmount -t proc p /proc\nmount -t sysfs s /sys\nmount -t devtmpfs d /dev\n\
             for m in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do insmod /$m.ko; done\n\
             stty -echo\nexec sh\n' > i/init; chmod +x i/init; cd i; find . | busybox cpio -o -H newc > ../initrd 2>/dev/null",
            home = home.display(),
            kernel = kernel.display(),
        );
        let packed = Command::new("sh").args(["-c", &pack]).status().unwrap();
        assert!(packed.success());
        let image = std::fs::read_dir(kernel.join("boot")).unwrap().flatten();
        let image = image
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().contains("vmlinuz"))
            .unwrap();
        let mut command = machine_command(monitor, 256);
        command.args([
            "-serial",
            "stdio",
            "-append",
            "console=ttyS0 quiet panic=-1",
        ]);
        command
            .arg("-kernel")
            .arg(image)
            .arg("-initrd")
            .arg(home.join("initrd"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (commands, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut guest = Guest {
            _machine: Ended(child),
            commands,
            answers: std::io::BufReader::new(answers),
            count: 0,
        };
        // What is typed before the shell is there is lost in part.
        guest.read_until("job control turned off");
        guest
    }

    /// What a command prints.
    fn run(&mut self, command: &str) -> String {
        use std::io::Write;
        self.count += 1;
        let end = format!("end-{}", self.count);
        writeln!(self.commands, "{command}\necho\necho en''d-{}", self.count).unwrap();
        self.read_until(&end)
    }

    fn read_until(&mut self, end: &str) -> String {
        use std::io::BufRead;
        let mut said = String::new();
        loop {
            let mut line = String::new();
            assert!(
                self.answers.read_line(&mut line).unwrap() > 0,
                "the guest ended: {said}"
            );
            if line.trim_end().ends_with(end) {
                return said.replace("/ # ", "");
            }
            said.push_str(&line);
        }
    }
}

fn endpoint(function: i32) -> opi::PciEndpoint {
    opi::PciEndpoint {
        port_id: Some(0),
        physical_function: Some(function),
        virtual_function: Some(0),
    }
}

async fn subsystem(nvme: &mut FrontendNvmeServiceClient<Channel>) {
    let spec = opi::NvmeSubsystemSpec {
        nqn: "nqn.2014-08.org.example:s".into(),
        ..Default::default()
    };
    let request = opi::CreateNvmeSubsystemRequest {
        nvme_subsystem: Some(opi::NvmeSubsystem {
            spec: Some(spec),
            ..Default::default()
        }),
        nvme_subsystem_id: "s".into(),
    };
    nvme.create_nvme_subsystem(request).await.unwrap();
}

fn controller(function: i32) -> opi::CreateNvmeControllerRequest {
    let spec = opi::NvmeControllerSpec {
        trtype: opi::NvmeTransportType::Pcie.into(),
        endpoint: Some(opi::nvme_controller_spec::Endpoint::PcieId(endpoint(
            function,
        ))),
        ..Default::default()
    };
    opi::CreateNvmeControllerRequest {
        parent: "nvmeSubsystems/s".into(),
        nvme_controller: Some(opi::NvmeController {
            spec: Some(spec),
            ..Default::default()
        }),
        nvme_controller_id: "c".into(),
    }
}

fn namespace(volume: &str) -> opi::CreateNvmeNamespaceRequest {
    let spec = opi::NvmeNamespaceSpec {
        volume_name_ref: volume.into(),
        uuid: UUID.into(),
        ..Default::default()
    };
    opi::CreateNvmeNamespaceRequest {
        parent: "nvmeSubsystems/s".into(),
        nvme_namespace: Some(opi::NvmeNamespace {
            spec: Some(spec),
            ..Default::default()
        }),
        nvme_namespace_id: "n".into(),
    }
}

async fn inventory(world: &World) -> InventoryResponse {
    world
        .card()
        .inventory(InventoryRequest {})
        .await
        .unwrap()
        .into_inner()
}

fn free(counts: &[FunctionCount]) -> Option<(u32, u32)> {
    let nvme = counts
        .iter()
        .find(|count| count.kind() == ExposureKind::NvmeFunction)?;
    Some((nvme.total, nvme.free))
}

pub(crate) fn nvme_is_plugged_and_taken_away() {
    run(async {
        let home = tempfile::Builder::new()
            .prefix("obv")
            .tempdir_in("/tmp")
            .unwrap();
        let monitor: PathBuf = home.path().join("q.sock");
        let guest = machine(&monitor);
        let monitor = monitor.to_string_lossy().into_owned();
        let world = World::with(&["--vm-monitor", &monitor, "--vm-ports", "rp0,rp1"]).await;
        while free(&inventory(&world).await.counts) != Some((2, 2)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut events = world
            .card()
            .watch(WatchRequest {})
            .await
            .unwrap()
            .into_inner();
        let mut nvme = FrontendNvmeServiceClient::new(world.channel());
        world
            .source("a", file(&world.raw("a.img", 8 * MIB)), UUID)
            .await
            .unwrap();
        subsystem(&mut nvme).await;
        nvme.create_nvme_namespace(namespace("sources/a"))
            .await
            .unwrap();
        let early = world.get_device(NAMESPACE).await.unwrap_err();
        assert_eq!(early.code(), Code::FailedPrecondition, "{early}");
        let none = nvme
            .create_nvme_controller(controller(7))
            .await
            .unwrap_err();
        assert_eq!(none.code(), Code::NotFound, "{none}");
        nvme.create_nvme_controller(controller(1)).await.unwrap();
        nvme.create_nvme_controller(controller(1)).await.unwrap();
        let (device, bound) = loop {
            let seen = world.get_device(NAMESPACE).await.unwrap();
            let device = seen.device.unwrap();
            // The firmware numbers the buses in its first moments.
            if device.address != Some(Address::PciAddress(String::new())) {
                break (device, seen.in_use);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(
            device.address,
            Some(Address::PciAddress("0000:02:00.0".into()))
        );
        assert_eq!(
            (device.serial.as_str(), device.nsid, bound),
            ("NOT3QEE5VUI5DAFUADAE", 1, true)
        );
        assert_eq!(device.function.unwrap().physical, 1);
        let now = inventory(&world).await;
        assert_eq!(free(&now.counts), Some((2, 1)));
        assert_eq!(now.functions[1].used_by, CONTROLLER);
        // The same function for another object.
        let mut blks = FrontendVirtioBlkServiceClient::new(world.channel());
        world
            .source(
                "b",
                file(&world.raw("b.img", MIB)),
                "00000000-0000-4000-8000-000000000001",
            )
            .await
            .unwrap();
        let blk = |function| opi::CreateVirtioBlkRequest {
            virtio_blk: Some(opi::VirtioBlk {
                pcie_id: Some(endpoint(function)),
                volume_name_ref: "sources/b".into(),
                ..Default::default()
            }),
            virtio_blk_id: "v".into(),
        };
        assert_eq!(
            blks.create_virtio_blk(blk(1)).await.unwrap_err().code(),
            Code::ResourceExhausted
        );
        blks.create_virtio_blk(blk(0)).await.unwrap();
        let seen = world
            .get_device("virtioBlks/v")
            .await
            .unwrap()
            .device
            .unwrap();
        assert_eq!(
            seen.address,
            Some(Address::PciAddress("0000:01:00.0".into()))
        );
        // A restart of the bridge finds what is plugged in.
        world.kill_bridge();
        world.start_bridge(None);
        world.answers().await;
        assert_eq!(
            world.get_device(NAMESPACE).await.unwrap().device.unwrap(),
            device
        );
        // Nobody in the guest lets go of it.
        let held = nvme
            .delete_nvme_namespace(opi::DeleteNvmeNamespaceRequest {
                name: NAMESPACE.into(),
                allow_missing: false,
            })
            .await
            .unwrap_err();
        assert_eq!(held.code(), Code::Aborted, "{held}");
        // A machine that has ended holds nothing.
        drop(guest);
        let again = opi::DeleteNvmeNamespaceRequest {
            name: NAMESPACE.into(),
            allow_missing: true,
        };
        nvme.delete_nvme_namespace(again).await.unwrap();
        blks.delete_virtio_blk(opi::DeleteVirtioBlkRequest {
            name: "virtioBlks/v".into(),
            allow_missing: false,
        })
        .await
        .unwrap();
        nvme.delete_nvme_controller(opi::DeleteNvmeControllerRequest {
            name: CONTROLLER.into(),
            allow_missing: false,
        })
        .await
        .unwrap();
        nvme.delete_nvme_subsystem(opi::DeleteNvmeSubsystemRequest {
            name: "nvmeSubsystems/s".into(),
            allow_missing: false,
        })
        .await
        .unwrap();
        world.delete_source("sources/a").await.unwrap();
        world.delete_source("sources/b").await.unwrap();
        let mut told = Vec::new();
        while let Ok(Some(event)) = events.message().await {
            if let Some(event::Kind::Functions(FunctionsChanged { counts })) = event.kind {
                told.extend(free(&counts));
            }
        }
        assert!(told.contains(&(2, 1)), "{told:?}");
        world.sweep().await;
    });
}

pub(crate) fn bridge_dies_while_plugging() {
    run(async {
        let home = tempfile::Builder::new()
            .prefix("obv")
            .tempdir_in("/tmp")
            .unwrap();
        let monitor = home.path().join("q.sock");
        let flag = monitor.to_string_lossy().into_owned();
        let world = World::with(&["--vm-monitor", &flag, "--vm-ports", "rp0,rp1"]).await;
        let image = world.raw("a.img", 8 * MIB);
        let mut nvme = FrontendNvmeServiceClient::new(world.channel());
        for step in ["vm::plugging", "vm::plugged", "vm::unplugging"] {
            let guest = machine(&monitor);
            while free(&inventory(&world).await.counts) != Some((2, 2)) || !monitor.exists() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            world.kill_bridge();
            world.start_bridge(Some(step));
            world.answers().await;
            let before = starts(&world);
            world.source("a", file(&image), UUID).await.unwrap();
            subsystem(&mut nvme).await;
            nvme.create_nvme_namespace(namespace("sources/a"))
                .await
                .unwrap();
            until(&world, async || {
                let mut nvme = FrontendNvmeServiceClient::new(world.channel());
                nvme.create_nvme_controller(controller(1)).await.map(drop)
            })
            .await;
            let seen = world.get_device(NAMESPACE).await.unwrap();
            assert_eq!(seen.device.unwrap().function.unwrap().physical, 1);
            // The guest never lets go; the machine's end does.
            let guest = std::sync::Mutex::new(Some(guest));
            until(&world, async || {
                let mut nvme = FrontendNvmeServiceClient::new(world.channel());
                let delete = opi::DeleteNvmeNamespaceRequest {
                    name: NAMESPACE.into(),
                    allow_missing: true,
                };
                let deleted = nvme.delete_nvme_namespace(delete).await.map(drop);
                guest.lock().unwrap().take();
                deleted
            })
            .await;
            assert_eq!(
                starts(&world),
                before + 1,
                "the bridge did not die at {step}"
            );
            let delete = opi::DeleteNvmeControllerRequest {
                name: CONTROLLER.into(),
                allow_missing: true,
            };
            nvme.delete_nvme_controller(delete).await.unwrap();
            let delete = opi::DeleteNvmeSubsystemRequest {
                name: "nvmeSubsystems/s".into(),
                allow_missing: true,
            };
            nvme.delete_nvme_subsystem(delete).await.unwrap();
            world.delete_source("sources/a").await.unwrap();
            world.sweep().await;
        }
    });
}

/// With a kernel of Debian's in the guest (`OUTBOARD_TEST_KERNEL`: the directory of an unpacked linux-image-…-cloud-amd64).
pub(crate) fn a_guest_uses_what_is_plugged_in(kernel: &std::path::Path) {
    run(async {
        let home = tempfile::Builder::new()
            .prefix("obv")
            .tempdir_in("/tmp")
            .unwrap();
        let monitor: PathBuf = home.path().join("q.sock");
        let mut guest = Guest::boot(kernel, home.path(), &monitor);
        let socket = monitor.to_string_lossy().into_owned();
        let world = World::with(&["--vm-monitor", &socket, "--vm-ports", "rp0,rp1"]).await;
        guest.run("true");
        let mut nvme = FrontendNvmeServiceClient::new(world.channel());
        let image = world.raw("a.img", 8 * MIB);
        world.source("a", file(&image), UUID).await.unwrap();
        subsystem(&mut nvme).await;
        nvme.create_nvme_controller(controller(1)).await.unwrap();
        nvme.create_nvme_namespace(namespace("sources/a"))
            .await
            .unwrap();
        let device = world.get_device(NAMESPACE).await.unwrap().device.unwrap();
        assert_eq!(
            device.address,
            Some(Address::PciAddress("0000:02:00.0".into()))
        );
        let seen = guest.run("until [ -b /dev/nvme0n1 ]; do sleep 0.1; done; cat /sys/block/nvme0n1/device/serial; readlink -f /sys/class/nvme/nvme0/device; cat /sys/block/nvme0n1/wwid; cat /sys/block/nvme0n1/size");
        assert!(
            seen.contains("NOT3QEE5VUI5DAFUADAE")
                && seen.contains("0000:02:00.0")
                && seen.contains("16384"),
            "{seen}"
        );
        let write = "dd if=/dev/urandom of=/tmp-data bs=64k count=64 2>/dev/null; dd if=/tmp-data of=/dev/nvme0n1 bs=64k conv=fsync 2>/dev/null; md5sum < /tmp-data";
        let sum = guest.run(write);
        // The card's daemon dies under a reader and writer of the guest: it waits, and sees no error.
        let daemon = world
            .engine_client()
            .list(Some("card"), crate::world::soon())
            .await
            .unwrap()
            .remove(0);
        guest.run("(for i in 1 2 3 4 5 6; do dd if=/tmp-data of=/dev/nvme0n1 bs=64k conv=fsync || echo BROKEN; done) > /log 2>&1 &");
        let pid = i32::try_from(daemon.pid.unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
        let log = guest.run("wait; cat /log");
        assert!(!log.contains("BROKEN") && !log.contains("error"), "{log}");
        let again = guest.run("echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/nvme0n1 bs=64k count=64 2>/dev/null | md5sum");
        assert_eq!(
            again.split_whitespace().next(),
            sum.split_whitespace().next()
        );
        let delete = opi::DeleteNvmeNamespaceRequest {
            name: NAMESPACE.into(),
            allow_missing: false,
        };
        nvme.delete_nvme_namespace(delete).await.unwrap();
        let gone = guest.run("until [ ! -b /dev/nvme0n1 ]; do sleep 0.1; done; echo gone");
        assert!(gone.contains("gone"));
        assert_eq!(free(&inventory(&world).await.counts), Some((2, 1)));

        // The same volume as virtio-blk on the other function.
        let mut blks = FrontendVirtioBlkServiceClient::new(world.channel());
        let blk = opi::CreateVirtioBlkRequest {
            virtio_blk: Some(opi::VirtioBlk {
                pcie_id: Some(endpoint(0)),
                volume_name_ref: "sources/a".into(),
                ..Default::default()
            }),
            virtio_blk_id: "v".into(),
        };
        blks.create_virtio_blk(blk).await.unwrap();
        let again = guest.run("until [ -b /dev/vda ]; do sleep 0.1; done; dd if=/dev/vda bs=64k count=64 2>/dev/null | md5sum; readlink -f /sys/block/vda; cat /sys/block/vda/size");
        assert_eq!(
            again.split_whitespace().next(),
            sum.split_whitespace().next()
        );
        assert!(
            again.contains("0000:01:00.0") && again.contains("16384"),
            "{again}"
        );
        // It grows under a writer.
        guest.run("(for i in 1 2 3 4; do dd if=/tmp-data of=/dev/vda bs=64k conv=fsync || echo BROKEN; done) > /log 2>&1 &");
        std::fs::File::options()
            .write(true)
            .open(&image)
            .unwrap()
            .set_len(16 * MIB)
            .unwrap();
        let resize = proto::card::v1::ResizeRequest {
            name: "sources/a".into(),
            size_bytes: 16 * MIB,
        };
        assert_eq!(
            world
                .card()
                .resize(resize)
                .await
                .unwrap()
                .into_inner()
                .size_bytes,
            16 * MIB
        );
        let grown = guest.run(
            "until [ $(cat /sys/block/vda/size) = 32768 ]; do sleep 0.1; done; wait; cat /log",
        );
        assert!(!grown.contains("BROKEN"), "{grown}");
        blks.delete_virtio_blk(opi::DeleteVirtioBlkRequest {
            name: "virtioBlks/v".into(),
            allow_missing: false,
        })
        .await
        .unwrap();
        nvme.delete_nvme_controller(opi::DeleteNvmeControllerRequest {
            name: CONTROLLER.into(),
            allow_missing: false,
        })
        .await
        .unwrap();
        nvme.delete_nvme_subsystem(opi::DeleteNvmeSubsystemRequest {
            name: "nvmeSubsystems/s".into(),
            allow_missing: false,
        })
        .await
        .unwrap();
        world.delete_source("sources/a").await.unwrap();
        world.sweep().await;
    });
}
