//! A wire that is dead and says nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::card::attachment;
use super::proxy::{ALL, Flows, Proxy};
use super::world::{World, soon};

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
