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

pub(crate) const NAMESPACE: &str = "nvmeSubsystems/s/nvmeNamespaces/n";
pub(crate) const CONTROLLER: &str = "nvmeSubsystems/s/nvmeControllers/c";

/// A machine that has its firmware alone.
fn machine(monitor: &std::path::Path) -> Ended {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-machine", "q35,accel=tcg", "-nodefaults"]);
    command.args(["-display", "none", "-no-reboot", "-m", "64"]);
    command.args(["-object", "memory-backend-memfd,id=m,size=64M,share=on"]);
    command.args(["-numa", "node,memdev=m"]);
    for n in 0..2 {
        command
            .arg("-device")
            .arg(format!("pcie-root-port,id=rp{n},chassis={n},slot={n}"));
    }
    command
        .arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", monitor.display()));
    command.stdin(Stdio::null());
    Ended(
        command
            .spawn()
            .expect("qemu-system-x86 is missing: run `make setup`"),
    )
}

pub(crate) fn endpoint(function: i32) -> opi::PciEndpoint {
    opi::PciEndpoint {
        port_id: Some(0),
        physical_function: Some(function),
        virtual_function: Some(0),
    }
}

pub(crate) async fn subsystem(nvme: &mut FrontendNvmeServiceClient<Channel>) {
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

pub(crate) fn controller(function: i32) -> opi::CreateNvmeControllerRequest {
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

pub(crate) fn namespace(volume: &str) -> opi::CreateNvmeNamespaceRequest {
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

pub(crate) async fn inventory(world: &World) -> InventoryResponse {
    world
        .card()
        .inventory(InventoryRequest {})
        .await
        .unwrap()
        .into_inner()
}

pub(crate) fn free(counts: &[FunctionCount]) -> Option<(u32, u32)> {
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
