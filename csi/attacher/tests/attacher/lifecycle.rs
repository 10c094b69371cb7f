use proto::attacher::v1::watch_response::Event;
use proto::attacher::v1::*;
use proto::card::v1::event::Kind;
use proto::card::v1::{EngineRestarted, SourceState};
use proto::volume::v1::Limits;
use tonic::{Code, Status};

use crate::card::SIZE;
use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn attach_get_list_resize_detach() {
    let world = World::new().await;
    let mut client = world.client();
    let limits = Limits {
        iops: 100,
        ..Limits::default()
    };
    let wanted = AttachmentSpec {
        size_bytes: SIZE,
        limits: Some(limits),
        ..spec()
    };
    let first = attach(&mut client, wanted.clone()).await.unwrap();
    assert_eq!(first.state(), State::Attached);
    let device = first.device.clone().unwrap();
    assert_eq!((device.size_bytes, device.uuid.as_str()), (SIZE, UUID));
    assert_eq!(first.spec.as_ref().unwrap().serial.len(), 20);
    assert!(world.card.state().limits.values().all(|l| *l == limits));

    // Repeated: as it is, with no call that changes anything. Limits and labels are taken over.
    let calls = world.card.state().log.len();
    let again = attach(&mut client, wanted.clone()).await.unwrap();
    assert_eq!(again, first);
    assert_eq!(world.card.state().log.len(), calls);
    let mut changed = wanted.clone();
    changed.limits = None;
    changed.labels = [("owner".to_owned(), "csi".to_owned())].into();
    let changed = attach(&mut client, changed).await.unwrap();
    assert_eq!(changed.generation, first.generation);
    assert_eq!(changed.spec.unwrap().labels["owner"], "csi");
    assert!(
        world
            .card
            .state()
            .limits
            .values()
            .all(|l| *l == Limits::default())
    );
    let other = AttachmentSpec {
        read_only: true,
        ..spec()
    };
    refused(
        attach(&mut client, other).await,
        Code::AlreadyExists,
        "another read_only",
    );

    refused(
        resize(&mut client, SIZE - 1).await,
        Code::OutOfRange,
        "never shrinks",
    );
    refused(
        resize(&mut client, SIZE + 512).await,
        Code::OutOfRange,
        "the source has",
    );
    assert_eq!(resize(&mut client, SIZE).await.unwrap(), SIZE);
    world.card.state().size = 2 * SIZE;
    assert_eq!(resize(&mut client, 2 * SIZE).await.unwrap(), 2 * SIZE);
    world.card.state().size = 3 * SIZE;
    assert_eq!(resize(&mut client, 0).await.unwrap(), 3 * SIZE);
    let got = client
        .get(GetRequest { id: id() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(got.attachment.unwrap().device.unwrap().size_bytes, 3 * SIZE);

    let late = DetachRequest {
        id: id(),
        generation: first.generation + 1,
        ..DetachRequest::default()
    };
    refused(
        client.detach(late).await,
        Code::FailedPrecondition,
        "another Attach came between",
    );
    world.card.state().in_use = true;
    let clean = detach(&mut client, DetachMode::Clean).await;
    refused(clean, Code::FailedPrecondition, "somebody has it open");
    assert_eq!(world.state().await, Some(State::Attached), "it stays");
    detach(&mut client, DetachMode::Surprise).await.unwrap();
    world.nothing_left().await;
    detach(&mut client, DetachMode::Clean).await.unwrap();
    refused(
        client.get(GetRequest { id: id() }).await,
        Code::NotFound,
        "is not attached",
    );
    refused(
        resize(&mut client, 0).await,
        Code::NotFound,
        "is not attached",
    );

    world.card.state().in_use = false;
    let next = attach(&mut client, spec()).await.unwrap();
    assert!(next.generation > first.generation);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nvme_function_is_reserved_and_set_free() {
    let world = World::new().await;
    let mut client = world.client();
    let uuid = |n: u32| format!("6ba7b810-9dad-41d1-80b4-00000000000{n}");
    for n in 0..2 {
        let attachment = attach_to(&mut client, &uuid(n), nvme()).await.unwrap();
        let address = attachment.device.unwrap().address;
        assert!(
            format!("{address:?}").contains(&format!("0000:0{n}:00.0")),
            "{address:?}"
        );
    }
    let third = attach_to(&mut client, &uuid(2), nvme()).await;
    refused(
        third,
        Code::ResourceExhausted,
        "detach another volume first",
    );
    let request = DetachRequest {
        id: Some(AttachmentId {
            volume_uuid: uuid(0),
            ..id().unwrap()
        }),
        ..DetachRequest::default()
    };
    client.detach(request).await.unwrap();
    attach_to(&mut client, &uuid(2), nvme()).await.unwrap();
    let inventory = client
        .inventory(InventoryRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (inventory.host.as_str(), inventory.card.as_str()),
        ("n1", "fake")
    );
    let page = |page_token| ListRequest {
        page_size: 1,
        page_token,
        ..ListRequest::default()
    };
    let first = client.list(page(String::new())).await.unwrap().into_inner();
    assert_eq!(
        first.attachments[0].id.as_ref().unwrap().volume_uuid,
        uuid(1)
    );
    let second = client
        .list(page(first.next_page_token))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        second.attachments[0].id.as_ref().unwrap().volume_uuid,
        uuid(2)
    );
    assert_eq!(second.next_page_token, "");
    refused(
        client.list(page("x".to_owned())).await,
        Code::InvalidArgument,
        "page_token",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attach_that_can_not_be_leaves_nothing() {
    let world = World::new().await;
    let mut client = world.client();
    for (method, status) in [
        ("CreateSource", Status::not_found("no credentials x")),
        (
            "CreateSource",
            Status::failed_precondition("the image is open elsewhere"),
        ),
        (
            "CreateLocalDevice",
            Status::unimplemented("no such kind of device"),
        ),
    ] {
        world.card.refuse(method, status.clone());
        refused(
            attach(&mut client, spec()).await,
            status.code(),
            status.message(),
        );
        world.card.allow(method);
        world.nothing_left().await;
    }
    for size_bytes in [SIZE - 512, SIZE + 512] {
        let wanted = AttachmentSpec {
            size_bytes,
            ..spec()
        };
        refused(
            attach(&mut client, wanted).await,
            Code::FailedPrecondition,
            "the source has",
        );
        world.nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_what_is_and_all_that_happens() {
    let mut world = World::new().await;
    let mut client = world.client();
    attach(&mut client, spec()).await.unwrap();
    let mut events = client
        .watch(WatchRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut next = async || events.message().await.unwrap().unwrap().event.unwrap();
    let Event::Attachment(present) = next().await else {
        panic!("it is there");
    };
    assert_eq!(present.state(), State::Attached);
    assert!(matches!(next().await, Event::Synced(_)));

    let object = {
        let mut state = world.card.state();
        let source = state.sources.values_mut().next().unwrap();
        source.state = SourceState::Reconnecting.into();
        source.message = "198.18.0.9 is away".to_owned();
        source.clone()
    };
    world.card.tell(Kind::Source(object.clone()));
    let Event::Attachment(degraded) = next().await else {
        panic!("it changed");
    };
    assert_eq!(degraded.state(), State::Degraded);
    assert!(
        degraded.message.contains("198.18.0.9 is away"),
        "{}",
        degraded.message
    );

    world
        .card
        .state()
        .sources
        .get_mut(&object.name)
        .unwrap()
        .state = SourceState::Connected.into();
    world.card.tell(Kind::Source(object));
    let Event::Attachment(healed) = next().await else {
        panic!("it changed");
    };
    assert_eq!(healed.state(), State::Attached);
    detach(&mut client, DetachMode::Clean).await.unwrap();
    loop {
        match next().await {
            Event::Attachment(leaving) => assert_eq!(leaving.state(), State::Detaching),
            Event::Detached(gone) => break assert_eq!(Some(gone), id()),
            other => panic!("{other:?}"),
        }
    }
    world.kill();
    assert!(events.message().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_engine_died_is_lost_until_it_is_opened_anew() {
    let mut world = World::new().await;
    let mut client = world.client();
    attach(&mut client, spec()).await.unwrap();
    let name = world.card.state().devices.keys().next().unwrap().clone();
    world.card.state().engine = 2;
    let lost = || {
        Kind::EngineRestarted(EngineRestarted {
            lost: vec![name.clone()],
        })
    };
    world.card.tell(lost());
    world.until_state(State::Lost).await;
    let got = client
        .get(GetRequest { id: id() })
        .await
        .unwrap()
        .into_inner()
        .attachment
        .unwrap();
    assert_eq!(got.state(), State::Lost);
    assert!(got.message.contains("opened anew"), "{}", got.message);
    // It stays lost over a restart, and an Attach says that the host has let go.
    world.restart().await;
    world
        .until("it was looked at", async |client| {
            client.get(GetRequest { id: id() }).await.is_ok()
        })
        .await;
    world.until_state(State::Lost).await;
    let healed = attach(&mut client, spec()).await.unwrap();
    assert_eq!(
        (healed.state(), healed.epoch.unwrap().engine.as_str()),
        (State::Attached, "2")
    );

    // A restart of the engine while nobody watched shows by the epoch; the host opening it anew ends it.
    world.kill();
    world.card.state().engine = 3;
    world.start().await;
    world.until_state(State::Lost).await;
    world.card.state().in_use = true;
    world.card.tell(Kind::Replayed(Default::default()));
    world.until_state(State::Attached).await;
}
