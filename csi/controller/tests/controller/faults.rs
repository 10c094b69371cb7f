//! kill -9 of csi-controller between any two steps: the same call, made again, ends as if nothing had been.

use std::time::Duration;

use proto::csi::v1::{CapacityRange, ControllerExpandVolumeRequest};
use tonic::Code;

use crate::publishing::write;
use crate::world::{MIB, World, publication, run, volume};

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "a_kill_between_any_two_steps_is_nothing",
        a_kill_between_any_two_steps_is_nothing,
    ),
    (
        "a_slow_call_goes_on_and_another_one_is_told",
        a_slow_call_goes_on_and_another_one_is_told,
    ),
];

fn a_kill_between_any_two_steps_is_nothing() {
    run(async {
        let mut world = World::prepared().await;
        for step in csi_controller::FAILPOINTS {
            let (before, _) = step.split_once("::").unwrap();
            world.start(&[]).await;
            let mut id = String::new();
            if before != "create" {
                id = world.create("a", 1).await;
            }
            if matches!(before, "unpublish" | "expand") {
                assert_eq!(
                    world.publish(&id, "node-1").await.unwrap()["fresh"],
                    "true",
                    "{step}"
                );
            }
            world.kill().await;

            world.start(&[("OUTBOARD_KILL_AT", step)]).await;
            let died = call(&world, before, &mut id).await;
            assert!(died.is_err(), "{step}");
            world.ended().await;

            world.start(&[]).await;
            for again in 0..2 {
                let done = call(&world, before, &mut id).await;
                done.unwrap_or_else(|why| panic!("{step}, {again}: {why}"));
            }
            // Whatever was cut off: nobody wrote, so the next host may format it all the same; and once somebody has, none may.
            if before == "publish" {
                assert_eq!(
                    world.publish(&id, "node-1").await.unwrap()["fresh"],
                    "true",
                    "{step}"
                );
                world.unpublish(&id, "node-1").await.unwrap();
            }
            if before != "delete" {
                world.unpublish(&id, "").await.unwrap();
                let context = world.publish(&id, "node-2").await.unwrap();
                assert_eq!(context["fresh"], "true", "{step}");
                let disk = context["address"].clone();
                let written = tokio::task::spawn_blocking(move || write(&disk, "hello"));
                written.await.unwrap().unwrap();
                world.unpublish(&id, "node-2").await.unwrap();
                let context = world.publish(&id, "node-1").await.unwrap();
                assert_eq!(context["fresh"], "false", "{step}");
                world.unpublish(&id, "node-1").await.unwrap();
                world.delete(&id).await.unwrap();
            }
            assert_eq!(world.leaks().await, [""; 0], "{step}");
            world.kill().await;
        }
    });
}

async fn call(world: &World, which: &str, id: &mut String) -> Result<(), tonic::Status> {
    match which {
        "create" => {
            let made = world.controller().create_volume(volume("a", 1)).await?;
            *id = made.into_inner().volume.unwrap().volume_id;
            Ok(())
        }
        "delete" => world.delete(id).await,
        "publish" => world.publish(id, "node-1").await.map(drop),
        "unpublish" => world.unpublish(id, "node-1").await,
        _ => {
            let request = ControllerExpandVolumeRequest {
                volume_id: id.clone(),
                capacity_range: Some(CapacityRange {
                    required_bytes: 2 * MIB,
                    limit_bytes: 0,
                }),
                ..Default::default()
            };
            world
                .controller()
                .controller_expand_volume(request)
                .await
                .map(drop)
        }
    }
}

fn a_slow_call_goes_on_and_another_one_is_told() {
    run(async {
        let world = World::new().await;
        let id = world.create("a", 1).await;
        world.dpus[0].slow(Some(Duration::from_secs(3)));
        let mut request = tonic::Request::new(publication(&id, "node-1"));
        request.set_timeout(Duration::from_millis(500));
        let mut controller = world.controller();
        let late = controller
            .controller_publish_volume(request)
            .await
            .unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
        // Not given up: the host keeps its access, and the same call says how it ended.
        assert_eq!(world.published(&id).await, ["node-1"]);
        let told = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            world.unpublish(&id, "node-1").await
        };
        let (done, told) = tokio::join!(world.publish(&id, "node-1"), told);
        assert_eq!(done.unwrap()["fresh"], "true");
        let told = told.unwrap_err();
        assert_eq!(told.code(), Code::Aborted, "{told}");
        assert!(
            told.message()
                .contains("ControllerPublishVolume is still under way"),
            "{told}"
        );
        world.unpublish(&id, "node-1").await.unwrap();
    });
}
