//! Which session counts.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Request};

use super::card::{attachment, key};
use super::proxy::Proxy;
use super::raw::{Raw, hello};
use super::world::{LONG, World, soon};
use crate::proto::{CheckRequest, DetachRequest, Reason};
use crate::{Failure, LinkState, Pairing};

#[tokio::test(flavor = "multi_thread")]
async fn a_link_comes_again_with_the_full_set() {
    let world = World::new();
    let dpu = world.dpu().await;
    let host = world.host("h1", dpu.address);
    *host.set.lock().unwrap() = vec![attachment("a", 1), attachment("b", 2)];
    host.up().await;
    let seen = world.sees("alive", |seen| seen.alive).await;
    assert_eq!(seen.host.as_deref(), Some("h1"));
    assert_eq!(seen.epoch.unwrap().boot_id, "boot-h1");
    assert_eq!(host.link.synced().borrow().len(), 2);

    let at = dpu.address;
    dpu.end().await;
    host.down_for("d1").await;
    let seen = world.sees("not alive", |seen| !seen.alive).await;
    assert!(!seen.why.is_empty());
    host.set.lock().unwrap().pop();
    let dpu = world.dpu_at(at, crate::hello::Dialect::default()).await;
    let began = Instant::now();
    host.up().await;
    assert!(began.elapsed() < Duration::from_millis(1500));
    world.card.done("synced h1 a", 1).await;
    assert_eq!(world.card.plugged(), ["a"]);

    // The host ends: that is no silence.
    let began = Instant::now();
    drop(host);
    world.sees("not alive", |seen| !seen.alive).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(world.card.plugged(), ["a"]);
    dpu.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_session_ends_the_older_and_its_calls() {
    let world = World::new();
    let dpu = world.dpu().await;
    let mut first = Raw::connect(dpu.address, &world.directory("h1")).await;
    let mut old = first.hello(hello()).await.unwrap();
    let id = old.welcome.session.clone();
    let mut slow = first
        .attach(&id, Some(attachment("slow", 1)))
        .await
        .unwrap();
    slow.message().await.unwrap();
    let mut stubborn = first
        .attach(&id, Some(attachment("stubborn", 2)))
        .await
        .unwrap();
    stubborn.message().await.unwrap();

    let mut second = Raw::connect(dpu.address, &world.directory("h1")).await;
    let mut new = second.hello(hello()).await.unwrap();
    assert_ne!(new.welcome.session, id);
    let end = old.next().await.unwrap_err();
    assert_eq!(end.code(), Code::FailedPrecondition);
    assert!(end.message().contains("newer session"), "{end}");
    world.card.done("undone slow", 1).await;
    tokio::time::timeout(LONG, first.peer.gone()).await.unwrap();

    // The new set waits for the last call of the old session, whose result nobody hears.
    new.full_set(vec![attachment("a", 3)]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!world.card.log().iter().any(|one| one.starts_with("sync ")));
    world.card.enough.notify_one();
    new.next().await.unwrap().unwrap();
    let log = world.card.log();
    let at = |what: &str| log.iter().position(|one| one == what).unwrap();
    assert!(at("detach stubborn") < at("sync h1 a"), "{log:?}");
    assert_eq!(world.card.plugged(), ["a"]);
    assert_eq!(world.seen.borrow().sessions, 2);
    assert!(world.seen.borrow().alive);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_counts_in_its_session_alone() {
    let world = World::new();
    let dpu = world.dpu().await;
    let mut first = Raw::connect(dpu.address, &world.directory("h1")).await;
    let old = first.hello(hello()).await.unwrap();
    let recorded = old.welcome.session.clone();
    let mut taken = first
        .attach(&recorded, Some(attachment("a", 1)))
        .await
        .unwrap();
    taken.message().await.unwrap();

    let mut second = Raw::connect(dpu.address, &world.directory("h1")).await;
    let new = second.hello(hello()).await.unwrap();
    let third = Raw::connect(dpu.address, &world.directory("h1")).await;
    // Recorded in the old session and replayed in the new one; one that never was; the right one, over another connection.
    let current = new.welcome.session.clone();
    for (mut raw, session) in [
        (second.client.clone(), recorded),
        (second.client.clone(), "never was".to_owned()),
        (third.client.clone(), current.clone()),
    ] {
        let detach = Request::new(DetachRequest {
            session: session.clone(),
            key: Some(key("a")),
            attempt: 1,
        });
        let status = raw.detach(detach).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(Failure::of(&status).unwrap().reason, Reason::NoSession);
        let check = Request::new(CheckRequest {
            session,
            key: Some(key("a")),
            attempt: 1,
        });
        assert!(raw.check(check).await.is_err());
    }
    assert_eq!(world.card.plugged(), ["a"]);
    assert_eq!(world.refused("no_session").await.peer, "h1");
    let detach = Request::new(DetachRequest {
        session: current,
        key: Some(key("a")),
        attempt: 1,
    });
    second.client.detach(detach).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_in_two_places_is_told() {
    let world = World::new();
    let dpu = world.dpu().await;
    let directory = world.directory("h1");
    let mut first = Raw::connect(dpu.address, &directory).await;
    let _first = first.hello(hello()).await.unwrap();
    let mut again = Raw::connect(dpu.address, &directory).await;
    let _again = again.hello(hello()).await.unwrap();
    assert!(!world.metrics().contains("two_places"));
    let mut thief = Raw::connect_from("127.0.0.9", dpu.address, &directory).await;
    let _thief = thief.hello(hello()).await.unwrap();
    let told = world.refused("two_places").await.sentence;
    assert!(
        told.contains("127.0.0.9") && told.contains("127.0.0.1"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_follows_its_pairing() {
    let world = World::new();
    let dpu = world.dpu().await;
    let host = world.host("h1", dpu.address);
    host.up().await;
    let pairing = host.pairing.borrow().clone();
    host.pairing.send_replace(None);
    host.is("unpaired", |state| *state == LinkState::Unpaired)
        .await;
    world.sees("not alive", |seen| !seen.alive).await;
    let failure = host.link.check(key("a"), 1, soon(0.1)).await.unwrap_err();
    assert!(failure.cause.contains("no Dpu object"), "{failure}");
    // Elsewhere, and again the same.
    let wire = Proxy::to(dpu.address).await;
    host.pairing.send_replace(Some(Pairing {
        dpu: "d1".to_owned(),
        address: wire.address,
    }));
    host.up().await;
    let sessions = world.seen.borrow().sessions;
    host.pairing.send_replace(pairing.clone());
    world
        .sees("a session more", |seen| seen.sessions > sessions)
        .await;
    host.up().await;
    host.pairing.send_replace(pairing);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.seen.borrow().sessions, sessions + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_session_does_not_stay() {
    let world = World::new();
    let dpu = world.dpu().await;
    let idle = Raw::connect(dpu.address, &world.directory("h1")).await;
    let other = Raw::connect(dpu.address, &world.directory("h2")).await;
    let began = Instant::now();
    let both = async { tokio::join!(idle.peer.gone(), other.peer.gone()) };
    tokio::time::timeout(LONG, both).await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(4));

    // Nor may there be too many; those of others do not take the host's room.
    let mut many = Vec::new();
    for _ in 0..20 {
        many.push(Raw::connect(dpu.address, &world.directory("h2")).await);
    }
    world.refused("too_many_connections").await;
    let host = world.host("h1", dpu.address);
    host.up().await;
}
