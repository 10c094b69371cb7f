use std::time::Duration;

use proto::attacher::v1::*;
use tonic::{Code, Status};

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn equal_calls_at_once_are_one() {
    let world = World::new().await;
    let held = world.card.hold("CreateSource");
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let mut client = world.client();
            tokio::spawn(async move { attach(&mut client, spec()).await })
        })
        .collect();
    world
        .until("the card was asked", async |_| {
            world.card.count("CreateSource") == 1
        })
        .await;
    held.add_permits(100);
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap().unwrap());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(world.card.count("CreateSource"), 1);
    assert_eq!(world.card.count("CreateLocalDevice"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contradicting_call_waits_two_seconds_and_the_work_outlives_its_caller() {
    let world = World::new().await;
    let held = world.card.hold("CreateSource");
    let mut client = world.client();
    let request = AttachRequest {
        id: id(),
        spec: Some(spec()),
    };
    let late = client
        .attach(within(request.clone(), Duration::from_secs(1)))
        .await;
    refused(late, Code::DeadlineExceeded, "it goes on, repeat the call");
    let began = std::time::Instant::now();
    let other = detach(&mut client, DetachMode::Clean).await;
    refused(other, Code::Aborted, "Attach is still under way");
    let waited = began.elapsed();
    assert!((1900..3000).contains(&waited.as_millis()), "{waited:?}");
    // The same call again joins what is under way; a detach that comes in time waits for it.
    let mut second = world.client();
    let joining = tokio::spawn(async move { attach(&mut second, spec()).await });
    let mut third = world.client();
    let waiting = tokio::spawn(async move { detach(&mut third, DetachMode::Clean).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    held.add_permits(100);
    joining.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(world.card.count("CreateSource"), 1);
    world.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_is_away_is_tried_again() {
    let mut world = World::new().await;
    let mut client = world.client();
    world.card_down();
    refused(
        attach(&mut client, spec()).await,
        Code::Unavailable,
        "repeat the call",
    );
    assert_eq!(world.state().await, Some(State::Attaching));
    world.card_up().await;
    world.until_state(State::Attached).await;
    // And a detach, with the answer lost on the way.
    let held = world.card.hold("DeleteSource");
    let mut other = world.client();
    let lost = tokio::spawn(async move { detach(&mut other, DetachMode::Clean).await });
    world
        .until("it is deleting", async |_| {
            world.card.count("DeleteSource") == 1
        })
        .await;
    held.add_permits(100);
    world.card_down();
    if let Err(status) = lost.await.unwrap() {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
    world.card_up().await;
    world.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_let_go_is_waited_for() {
    let world = World::new().await;
    let mut client = world.client();
    attach(&mut client, nvme()).await.unwrap();
    world.card.refuse(
        "DeleteNvmeController",
        Status::aborted("the guest holds the device"),
    );
    refused(
        detach(&mut client, DetachMode::Clean).await,
        Code::Aborted,
        "the guest holds",
    );
    assert_eq!(world.state().await, Some(State::Detaching));
    refused(
        attach(&mut client, nvme()).await,
        Code::Aborted,
        "the guest holds",
    );
    world.card.allow("DeleteNvmeController");
    // Without anybody asking.
    world.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_no_attachment_goes_unless_a_host_uses_it() {
    let mut world = World::new().await;
    let mut client = world.client();
    attach(&mut client, spec()).await.unwrap();
    world.kill();
    world.forget_journal();
    world.card.state().in_use = true;
    let tried = world.card.count("DeleteLocalDevice");
    world.start().await;
    world
        .until("it was tried", async |_| {
            world.card.count("DeleteLocalDevice") > tried
        })
        .await;
    assert!(!world.card.state().is_empty());
    // Its owner comes back: it is adopted as it is.
    let made = world.card.count("CreateLocalDevice");
    attach(&mut client, spec()).await.unwrap();
    assert_eq!(world.card.count("CreateLocalDevice"), made);
    world.kill();
    world.forget_journal();
    world.card.state().in_use = false;
    world.start().await;
    world.nothing_left().await;
}
