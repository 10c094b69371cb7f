use std::os::unix::fs::FileExt;
use std::time::Duration;

use proto::attacher::v1::State;
use proto::node::v1::host_volumes_client::HostVolumesClient;
use proto::node::v1::*;
use proto::volume::v1::ExposureKind;
use proto::volume::v1::device::Address;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::world::*;

fn path(volume: &proto::volume::v1::Device) -> String {
    match &volume.address {
        Some(Address::Path(path)) => path.clone(),
        other => panic!("{other:?}"),
    }
}

/// As a sidecar does: UNAVAILABLE is asked again.
async fn asked<Q: Clone, A>(
    client: &mut HostVolumesClient<Channel>,
    request: Q,
    ask: impl AsyncFn(&mut HostVolumesClient<Channel>, Q) -> Result<Response<A>, Status>,
) -> Result<A, Status> {
    let mut tries = 0;
    loop {
        match ask(client, request.clone()).await {
            Err(status) if status.code() == Code::Unavailable && tries < 50 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            answer => return answer.map(Response::into_inner),
        }
    }
}

async fn attach(
    c: &mut HostVolumesClient<Channel>,
    r: AttachRequest,
) -> Result<AttachResponse, Status> {
    asked(c, r, async |c, r| c.attach(r).await).await
}

async fn detach(c: &mut HostVolumesClient<Channel>, host: &str) -> Result<(), Status> {
    let request = DetachRequest {
        id: id(host),
        ..DetachRequest::default()
    };
    asked(c, request, async |c, r| c.detach(r).await)
        .await
        .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_comes_grows_is_repaired_and_goes() {
    let mut world = World::new().await;
    let mut controller = world.controller().await;
    let mut host = world.host();
    let repair = || RepairRequest {
        volume_uuid: UUID.to_owned(),
        ..RepairRequest::default()
    };
    refused(
        host.repair(repair()).await,
        Code::NotFound,
        "only csi-controller can repair that",
    );

    let wanted = world.volume();
    let attached = attach(&mut controller, wanted.clone()).await.unwrap();
    let device = attached.device.clone().unwrap();
    assert_eq!(
        (device.kind(), device.size_bytes),
        (ExposureKind::LocalBlockDevice, 4 * MIB)
    );
    let block = std::fs::File::options()
        .write(true)
        .open(path(&device))
        .unwrap();
    block.write_all_at(&[7; 4096], 0).unwrap();
    block.sync_all().unwrap();
    let again = attach(&mut controller, wanted.clone()).await.unwrap();
    assert_eq!(again, attached);
    let volume = world.health().await.unwrap();
    assert_eq!(
        (volume.state(), volume.volume_id.as_str()),
        (State::Attached, "v1.local.x")
    );
    let other = AttachRequest {
        read_only: true,
        ..wanted.clone()
    };
    refused(
        attach(&mut controller, other).await,
        Code::AlreadyExists,
        "read_only",
    );
    let nvme = AttachRequest {
        acceptable: vec![ExposureKind::NvmeFunction.into()],
        ..wanted.clone()
    };
    refused(
        attach(&mut controller, nvme).await,
        Code::Unimplemented,
        "can do",
    );
    let elsewhere = AttachRequest {
        id: id("n2"),
        ..wanted.clone()
    };
    refused(
        attach(&mut controller, elsewhere).await,
        Code::NotFound,
        "serves n1",
    );
    let described = host
        .describe(DescribeRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(described.volumes, [volume]);

    // The host has it open.
    refused(
        detach(&mut controller, "n1").await,
        Code::FailedPrecondition,
        "",
    );
    assert_eq!(world.health().await.unwrap().state(), State::Attached);

    let image = std::fs::File::options()
        .write(true)
        .open(world.path("image"))
        .unwrap();
    image.set_len(8 * MIB).unwrap();
    let request = ResizeRequest {
        id: id("n1"),
        size_bytes: 8 * MIB,
    };
    let grown = asked(&mut controller, request, async |c, r| c.resize(r).await)
        .await
        .unwrap();
    assert_eq!(grown.device.unwrap().size_bytes, 8 * MIB);

    // Programs come and go: the device does not notice.
    for program in ["opi-bridge", "volume-attacher", "csi-node-dpu"] {
        world.kill(program);
        block.write_all_at(&[8; 4096], 4096).unwrap();
        block.sync_all().unwrap();
        world.start(program);
    }
    world
        .until("it is attached as before", async |world| {
            world
                .health()
                .await
                .is_ok_and(|volume| volume.state() == State::Attached)
        })
        .await;
    let size = world.health().await.unwrap().device.unwrap().size_bytes;
    assert_eq!(size, 8 * MIB);

    // The engine's daemon dies: what was open is dead, and a repair brings the volume back.
    let daemons = world.daemons();
    assert_eq!(daemons.len(), 1);
    let pid = nix::unistd::Pid::from_raw(daemons[0]);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    world
        .until("it is lost", async |world| {
            world
                .health()
                .await
                .is_ok_and(|volume| volume.state() == State::Lost)
        })
        .await;
    assert!(
        world
            .health()
            .await
            .unwrap()
            .message
            .contains("opened anew")
    );
    drop(block);
    world
        .until("it is repaired", async |world| {
            world.host().repair(repair()).await.is_ok()
        })
        .await;
    let volume = world.health().await.unwrap();
    assert_eq!(volume.state(), State::Attached, "{}", volume.message);
    let block = std::fs::File::open(path(&volume.device.unwrap())).unwrap();
    let mut bytes = [0; 8192];
    block.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..4096] == [7; 4096] && bytes[4096..] == [8; 4096]);
    drop(block);

    detach(&mut controller, "n1").await.unwrap();
    detach(&mut controller, "n1").await.unwrap();
    detach(&mut controller, "n2").await.unwrap();
    refused(world.health().await, Code::NotFound, "is not attached");
    world
        .until("no daemon is left", async |world| {
            world.daemons().is_empty()
        })
        .await;
    assert_eq!(std::fs::read_dir(world.path("exports")).unwrap().count(), 0);
}

/// Nobody in the machine lets go of a device: it has no system.
#[tokio::test(flavor = "multi_thread")]
async fn an_nvme_function_is_the_first_choice_where_the_card_has_one() {
    let mut world = World::with_machine().await;
    let mut controller = world.controller().await;
    let attached = attach(&mut controller, world.volume()).await.unwrap();
    let device = attached.device.clone().unwrap();
    assert_eq!(
        (device.kind(), device.uuid.as_str()),
        (ExposureKind::NvmeFunction, UUID)
    );
    assert_eq!((device.size_bytes, device.serial.len()), (4 * MIB, 20));
    let capacity = CapacityRequest {
        host: "n1".to_owned(),
    };
    let capacity = controller.capacity(capacity).await.unwrap().into_inner();
    let nvme = capacity
        .functions
        .iter()
        .find(|count| count.kind() == ExposureKind::NvmeFunction);
    assert_eq!(nvme.map(|count| (count.total, count.free)), Some((2, 1)));
    for program in ["opi-bridge", "volume-attacher"] {
        world.kill(program);
        world.start(program);
    }
    let again = attach(&mut controller, world.volume()).await.unwrap();
    assert_eq!(
        (again.generation, again.device),
        (attached.generation, attached.device)
    );
    let mut waiting = tonic::Request::new(DetachRequest {
        id: id("n1"),
        ..DetachRequest::default()
    });
    waiting.set_timeout(Duration::from_secs(5));
    let held = controller.detach(waiting).await.unwrap_err();
    assert!(
        matches!(held.code(), Code::Aborted | Code::DeadlineExceeded),
        "{held}"
    );
    assert_eq!(world.health().await.unwrap().state(), State::Detaching);
    world.kill("machine");
    detach(&mut controller, "n1").await.unwrap();
    world
        .until("no daemon is left", async |world| {
            world.daemons().is_empty()
        })
        .await;
}
