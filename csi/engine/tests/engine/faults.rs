//! The engine dies between any two steps, and many daemons at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use engine::{Daemon, State};
use futures::future::join_all;

use crate::world::{World, idle, kill_daemon, put, replaced, soon};

/// Starts the engine again whenever it is dead.
fn supervise(world: &Arc<World>) -> Arc<AtomicUsize> {
    let deaths = Arc::new(AtomicUsize::new(0));
    let (world, counter) = (Arc::downgrade(world), Arc::clone(&deaths));
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while let Some(world) = world.upgrade() {
            if world.restart_if_dead() {
                counter.fetch_add(1, Ordering::SeqCst);
            }
            drop(world);
            tick.tick().await;
        }
    });
    deaths
}

fn running(daemon: &Daemon) {
    assert_eq!(daemon.state, State::Running, "{daemon:?}");
}

async fn life_with_a_death_at(step: &str) {
    let world = Arc::new(World::start(Some(step)));
    let deaths = supervise(&world);
    let client = world.client();
    let image = world.image("a");
    let bystander = client.put(&idle("by"), soon()).await.unwrap();
    running(&bystander);
    let first = client.put(&world.nbd("a", &image), soon()).await.unwrap();
    running(&first);
    assert_eq!(world.daemons().len(), 2, "{step}");

    let mut wish = world.nbd("a", &image);
    wish.recipe.push(qemu::Step {
        execute: "query-version".into(),
        arguments: serde_json::Map::new(),
    });
    let second = client.put(&wish, soon()).await.unwrap();
    running(&second);
    assert_eq!(
        (second.revision, &second.epoch),
        (2, &first.epoch),
        "{step}"
    );
    kill_daemon(&second);
    let third = replaced(&client, &second).await;
    assert_eq!(third.applied, Some(2), "{step}");
    assert_eq!(world.daemons().len(), 2, "{step}");

    client.remove("a", soon()).await.unwrap();
    assert_eq!(client.get("a", soon()).await.unwrap(), None, "{step}");
    assert_eq!(deaths.load(Ordering::SeqCst), 1, "{step} was not reached");
    let left = client.list(None, soon()).await.unwrap();
    assert_eq!(left.len(), 1, "{step}: {left:?}");
    let pids: Vec<_> = left.iter().filter_map(|daemon| daemon.pid).collect();
    assert_eq!(
        world.daemons(),
        pids.iter().map(|pid| *pid as i32).collect::<Vec<_>>(),
        "{step}"
    );
    assert!(!world.place("a").exists(), "{step}");
    client.remove("by", soon()).await.unwrap();
    assert_eq!(world.daemons(), Vec::<i32>::new(), "{step}");
}

#[tokio::test]
async fn an_engine_killed_between_any_two_steps_converges() {
    for step in engine::FAILPOINTS {
        life_with_a_death_at(step).await;
    }
}

#[tokio::test]
async fn a_removal_goes_on_without_being_asked_again() {
    for step in ["remove::recorded", "remove::ended", "remove::cleared"] {
        let world = World::start(Some(step));
        let client = world.client();
        client.put(&idle("a"), soon()).await.unwrap();
        let hurry = tokio::time::Instant::now() + Duration::from_secs(1);
        client.remove("a", hurry).await.unwrap_err();
        world.run(None);
        let mut watch = client.watch();
        while client.get("a", soon()).await.unwrap().is_some() {
            watch.next().await;
        }
        assert_eq!(world.daemons(), Vec::<i32>::new(), "{step}");
        assert!(!world.place("a").exists(), "{step}");
    }
}

#[tokio::test]
async fn fifty_at_once() {
    let world = World::start(None);
    let client = world.client();
    let timed = |what: &str, started: Instant| println!("50 {what} in {:?}", started.elapsed());
    let started = Instant::now();
    let wishes = (0..50).map(|n| {
        let id = format!("d{n:02}");
        let image = world.image(&id);
        world.nbd(&id, &image)
    });
    let wishes: Vec<_> = wishes.collect();
    timed("images", started);
    let started = Instant::now();
    let puts = wishes.iter().map(|wish| client.put(wish, soon()));
    let before: Vec<_> = join_all(puts)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    timed("started", started);
    before.iter().for_each(running);
    assert_eq!(world.daemons().len(), 50);

    world.kill_engine();
    let started = Instant::now();
    world.run(None);
    let puts = wishes.iter().map(|wish| client.put(wish, soon()));
    let found: Vec<_> = join_all(puts)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    timed("found", started);
    assert_eq!(found, before);

    let started = Instant::now();
    found.iter().for_each(kill_daemon);
    let back = join_all(found.iter().map(|daemon| replaced(&client, daemon))).await;
    timed("back", started);
    assert_eq!(world.daemons().len(), 50);
    back.iter().for_each(running);

    let started = Instant::now();
    let removals = back.iter().map(|daemon| client.remove(&daemon.id, soon()));
    join_all(removals)
        .await
        .into_iter()
        .for_each(Result::unwrap);
    timed("removed", started);
    assert_eq!(world.daemons(), Vec::<i32>::new());
    assert_eq!(client.list(None, soon()).await.unwrap(), []);
}

/// A launcher is looked at in the midst of its exec, and a monitor is asked in the midst of its start: one in a hundred of
/// these once failed, and one in three hundred hung.
#[tokio::test]
async fn starts_and_removals_by_the_hundred() {
    let world = World::start(None);
    let client = world.client();
    let lives = (0..8).map(|lane| {
        let client = client.clone();
        async move {
            for n in 0..50 {
                let wish = put(&format!("l{lane}-{n}"), engine::Recipe::default());
                running(&client.put(&wish, soon()).await.unwrap());
                client.remove(&wish.id, soon()).await.unwrap();
            }
        }
    });
    join_all(lives).await;
    assert_eq!(world.daemons(), Vec::<i32>::new());
}

#[tokio::test]
async fn equal_and_contrary_calls_at_once() {
    let world = World::start(None);
    let client = world.client();
    let wish = put("a", engine::Recipe::default());
    for _ in 0..10 {
        let puts = (0..8).map(|_| client.put(&wish, soon()));
        let removals = (0..3).map(|_| client.remove("a", soon()));
        let (puts, removals) = futures::join!(join_all(puts), join_all(removals));
        assert!(removals.iter().all(Result::is_ok), "{removals:?}");
        assert!(puts.iter().all(Result::is_ok), "{puts:?}");
        assert!(world.daemons().len() <= 1);
    }
    client.remove("a", soon()).await.unwrap();
    assert_eq!(world.daemons(), Vec::<i32>::new());
}
