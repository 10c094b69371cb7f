//! A wire that is dead and says nothing.

use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use super::card::attachment;
use super::proxy::{ALL, Flows, Proxy};
use super::world::{World, soon};
use crate::hello::Dialect;

/// Failure is noticed by then.
const NOTICED: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_notice_within_three_seconds_and_nothing_hangs() {
    let world = World::new();
    let dpu = world.dpu().await;
    let wire = Proxy::to(dpu.address).await;
    let host = world.host("h1", wire.address);
    host.set.lock().unwrap().push(attachment("a", 1));
    host.up().await;
    let since = world.sees("alive", |seen| seen.alive).await.since;
    let mut attaching = host
        .link
        .attach(attachment("slow", 2), soon(5.0))
        .await
        .unwrap();
    attaching.wiring().await.unwrap();
    // Longer than anybody is silent.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.seen.borrow().since, since);

    wire.stop();
    let began = Instant::now();
    let (why, seen, ended) = tokio::join!(
        async {
            let why = host.down().await;
            (why, began.elapsed())
        },
        async {
            let seen = world.sees("not alive", |seen| !seen.alive).await;
            world.card.done("undone slow", 1).await;
            (seen, began.elapsed())
        },
        attaching.installed()
    );
    assert!(why.0.contains("nothing was heard"), "{}", why.0);
    assert!(
        why.1 > Duration::from_millis(1500) && why.1 < NOTICED,
        "{why:?}"
    );
    assert!(seen.0.why.contains("host h1 was not heard"), "{seen:?}");
    assert!(
        seen.1 > Duration::from_millis(1500) && seen.1 < NOTICED,
        "{seen:?}"
    );
    assert_eq!(ended.unwrap_err().code, 11);
    assert!(world.metrics().contains("outboard_dpu_host_up 0"));
    assert!(
        !world
            .metrics()
            .contains("outboard_dpu_heartbeat_age_seconds ")
    );
    assert!(host.metrics().contains("outboard_channel_up 0"));

    // It heals: the full set again.
    wire.flow(ALL);
    let began = Instant::now();
    host.up().await;
    assert!(began.elapsed() < Duration::from_secs(4), "{began:?}");
    world.card.done("synced h1 a", 2).await;
    assert_eq!(world.sees("alive", |seen| seen.alive).await.sessions, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_direction_is_enough() {
    for (flows, why) in [
        (
            Flows {
                to_host: false,
                ..ALL
            },
            "nothing was heard",
        ),
        (
            Flows {
                to_dpu: false,
                ..ALL
            },
            "host h1 was not heard",
        ),
    ] {
        let world = World::new();
        let dpu = world.dpu().await;
        let wire = Proxy::to(dpu.address).await;
        let host = world.host("h1", wire.address);
        host.up().await;
        wire.flow(flows);
        let began = Instant::now();
        host.down_for(why).await;
        world.sees("not alive", |seen| !seen.alive).await;
        assert!(began.elapsed() < NOTICED, "{:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wire_that_swallows_everything_is_tried_so_often_that_its_healing_is_seen_at_once() {
    let world = World::new();
    // A listener whose queue is full drops every SYN.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    let swallows = Duration::from_millis(100);
    while let Ok(stream) = tokio::time::timeout(swallows, TcpStream::connect(address)).await {
        filling.push(stream.unwrap());
    }
    let host = world.host("h1", address);
    host.down_for("did not answer").await;
    // By then the wait between two tries is as long as it gets.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    let _dpu = world.dpu_on(listener, Dialect::default());
    host.up().await;
    println!("up {:?} after the wire has healed", began.elapsed());
    assert!(began.elapsed() < Duration::from_millis(900), "{began:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_a_session_that_lasted_comes_again_at_once() {
    let world = World::new();
    let dpu = world.dpu().await;
    let wire = Proxy::to(dpu.address).await;
    let host = world.host("h1", wire.address);
    host.up().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let began = Instant::now();
    wire.break_all();
    world
        .sees("a second session", |seen| seen.sessions == 2)
        .await;
    println!("a new session {:?} after the loss", began.elapsed());
    assert!(began.elapsed() < Duration::from_millis(500), "{began:?}");
}
