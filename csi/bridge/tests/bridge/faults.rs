//! kill -9 of everything, at any moment.

use std::time::Duration;

use proto::card::v1::{ResizeRequest, WatchRequest, event};
use tokio::time::Instant;

use crate::beside::both;
use crate::run;
use crate::world::{Disk, MIB, UUID, World, block, file, nbd, path_of, soon, target};

const NAME: &str = "localDevices/d";

pub(crate) fn target_is_killed_under_a_writer() {
    run(async {
        let world = World::start().await;
        let image = world.raw("a.img", 8 * MIB);
        let socket = world.path("t.sock");
        let first = target(&image, &socket).await;
        world.source("a", nbd(&socket), UUID).await.unwrap();
        let device = world.device("d", "sources/a", block()).await.unwrap();
        let (began, begins) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || {
            let disk = Disk::open(&path_of(&device));
            for n in 0..1500 {
                disk.write(n).unwrap();
                if n == 200 {
                    began.send(()).unwrap();
                }
            }
            disk.sync().unwrap();
        });
        begins.recv().unwrap();
        drop(first);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let _second = target(&image, &socket).await;
        writer.join().expect("the writer saw an error");
        world.delete_device(NAME, false).await.unwrap();
        world.delete_source("sources/a").await.unwrap();
        world.sweep().await;
        let written = Disk::open(&image);
        assert!((0..1500).all(|n| written.holds(n).unwrap()));
    });
}

/// What the bridge's mount namespace held goes with it, as a container's does.
pub(crate) fn contained_bridge_is_killed_under_a_writer() {
    run(async {
        let world = World::contained().await;
        let image = world.raw("a.img", 8 * MIB);
        world.source("a", file(&image), UUID).await.unwrap();
        let device = world.device("d", "sources/a", block()).await.unwrap();
        let disk = Disk::open(&path_of(&device));
        for life in 0..3 {
            (life * 100..(life + 1) * 100).for_each(|n| disk.write(n).unwrap());
            world.kill_bridge();
            world.start_bridge(None);
            world.answers().await;
            let now = world.get_device(NAME).await.unwrap();
            assert_eq!(now.device.as_ref(), Some(&device));
            let again = world.device("d", "sources/a", block()).await.unwrap();
            assert_eq!(again, device);
            assert_eq!(world.loops().len(), 1, "found by its file");
        }
        assert!((0..300).all(|n| disk.holds(n).unwrap()));
        drop(disk);
        world.delete_device(NAME, false).await.unwrap();
        world.delete_source("sources/a").await.unwrap();
        world.sweep().await;
    });
}

pub(crate) fn daemon_is_killed_and_healed() {
    run(async {
        let world = World::start().await;
        let image = world.raw("a.img", 8 * MIB);
        world.source("a", file(&image), UUID).await.unwrap();
        let device = world.device("d", "sources/a", block()).await.unwrap();
        let epoch = world.get_device(NAME).await.unwrap().epoch.unwrap();
        let disk = Disk::open(&path_of(&device));
        (0..100).for_each(|n| disk.write(n).unwrap());
        disk.sync().unwrap();
        let mut events = world
            .card()
            .watch(WatchRequest {})
            .await
            .unwrap()
            .into_inner();
        let daemon = world
            .engine_client()
            .list(Some("card"), soon())
            .await
            .unwrap()
            .remove(0);
        let pid = i32::try_from(daemon.pid.unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
        let mut told = Vec::new();
        while !matches!(told.last(), Some(event::Kind::Replayed(_))) {
            let next = tokio::time::timeout(Duration::from_secs(30), events.message()).await;
            told.push(next.expect("no event").unwrap().unwrap().kind.unwrap());
        }
        assert!(matches!(&told[0], event::Kind::Started(_)));
        let lost = told.iter().find_map(|kind| match kind {
            event::Kind::EngineRestarted(restarted) => Some(&restarted.lost),
            _ => None,
        });
        assert_eq!(lost.unwrap(), &[NAME.to_owned()]);
        let Some(event::Kind::Replayed(replayed)) = told.last() else {
            unreachable!()
        };
        assert!(replayed.failed.is_empty(), "{replayed:?}");
        // What was open is dead, and what was synced is there for who opens it anew.
        assert!(disk.holds(5).is_err());
        let now = world.get_device(NAME).await.unwrap();
        assert_ne!(now.epoch.unwrap(), epoch);
        let healed = Disk::open(&path_of(&now.device.unwrap()));
        assert!((0..100).all(|n| healed.holds(n).unwrap()));
        healed.write(7).unwrap();
        assert_eq!(world.loops().len(), 1);
        drop((disk, healed));
        world.delete_device(NAME, false).await.unwrap();
        world.delete_source("sources/a").await.unwrap();
        world.sweep().await;
    });
}

/// One life: everything that has a step in it. Each call is repeated until it succeeds, as a caller does.
async fn life(world: &World, image: &std::path::Path) {
    until(world, async || {
        world.source("a", file(image), UUID).await.map(drop)
    })
    .await;
    until(world, async || {
        world.device("d", "sources/a", both(1)).await.map(drop)
    })
    .await;
    std::fs::File::options()
        .write(true)
        .open(image)
        .unwrap()
        .set_len(8 * MIB)
        .unwrap();
    until(world, async || {
        let request = ResizeRequest {
            name: "sources/a".into(),
            size_bytes: 8 * MIB,
        };
        world.card().resize(request).await.map(drop)
    })
    .await;
    let device = world.get_device(NAME).await.unwrap().device.unwrap();
    assert_eq!(device.size_bytes, 8 * MIB);
    assert_eq!(world.loops().len(), 1);
    let disk = Disk::open(&path_of(&device));
    disk.write(1).unwrap();
    assert!(disk.holds(1).unwrap());
    drop(disk);
    until(world, async || world.delete_device(NAME, false).await).await;
    until(world, async || world.delete_source("sources/a").await).await;
}

/// Calls until it succeeds; starts a bridge that has died again.
pub(crate) async fn until(world: &World, call: impl AsyncFn() -> Result<(), tonic::Status>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(why) = call().await {
        assert!(Instant::now() < deadline, "{why}");
        if world.bridge_is_dead() {
            world.start_bridge(None);
            world.answers().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn starts(world: &World) -> usize {
    world.log().matches("opi-bridge starts").count()
}

pub(crate) fn bridge_dies_between_any_two_steps() {
    run(async {
        let world = World::start().await;
        let elsewhere = ["update::recorded", "limits::recorded"];
        let here = |step: &&str| !elsewhere.contains(step) && !step.starts_with("vm::");
        for step in bridge::FAILPOINTS.into_iter().filter(here) {
            let image = world.raw("a.img", 4 * MIB);
            world.kill_bridge();
            world.start_bridge(Some(step));
            world.answers().await;
            let begun = Instant::now();
            let before = starts(&world);
            life(&world, &image).await;
            assert_eq!(
                starts(&world),
                before + 1,
                "the bridge did not die at {step}"
            );
            println!("  {step}: {:.1} s", begun.elapsed().as_secs_f32());
            world.sweep().await;
        }
    });
}

pub(crate) fn fifty_at_once() {
    run(async {
        let world = World::start().await;
        let volumes: Vec<_> = (0..50)
            .map(|n| {
                let uuid = format!("00000000-0000-4000-8000-{n:012}");
                (format!("v{n}"), uuid, world.raw(&format!("{n}.img"), MIB))
            })
            .collect();
        let attach = volumes.iter().map(|(id, uuid, image)| {
            let world = &world;
            async move {
                world.source(id, file(image), uuid).await.unwrap();
                let device = world
                    .device(id, &format!("sources/{id}"), block())
                    .await
                    .unwrap();
                Disk::open(&path_of(&device)).write(3).unwrap();
            }
        });
        futures::future::join_all(attach).await;
        assert_eq!(world.loops().len(), 50);
        let detach = volumes.iter().map(|(id, _, image)| {
            let world = &world;
            async move {
                world
                    .delete_device(&format!("localDevices/{id}"), false)
                    .await
                    .unwrap();
                world.delete_source(&format!("sources/{id}")).await.unwrap();
                assert!(Disk::open(image).holds(3).unwrap());
            }
        });
        futures::future::join_all(detach).await;
        world.sweep().await;
    });
}
