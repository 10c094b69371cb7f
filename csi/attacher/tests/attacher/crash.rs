//! kill -9 between any two steps, then a new process and no help.

use proto::attacher::v1::*;
use proto::volume::v1::Limits;

use crate::card::SIZE;
use crate::world::*;

fn limited() -> AttachmentSpec {
    AttachmentSpec {
        limits: Some(Limits {
            bytes: 1 << 20,
            ..Limits::default()
        }),
        size_bytes: SIZE,
        ..nvme()
    }
}

async fn killed_at(step: &str) {
    let mut world = World::dying_at(step).await;
    let mut client = world.client();
    let steps = async {
        attach(&mut client, limited()).await?;
        world.card.state().size = 2 * SIZE;
        resize(&mut client, 2 * SIZE).await?;
        detach(&mut client, DetachMode::Clean).await
    };
    assert!(steps.await.is_err(), "{step} is not on the way");
    world.reborn().await;
    if step.starts_with("attach::begun") {
        world.nothing_left().await;
        return;
    }
    if step.contains("deleted") || step.starts_with("detach") {
        world.nothing_left().await;
        return;
    }
    world.until_state(State::Attached).await;
    let limits: Vec<Limits> = world.card.state().limits.values().copied().collect();
    assert_eq!(limits, [limited().limits.unwrap()], "{step}");
    let mut client = world.client();
    detach(&mut client, DetachMode::Clean).await.unwrap();
    world.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_may_be_the_last() {
    for step in attacher::FAILPOINTS {
        println!("killed at {step}");
        killed_at(step).await;
    }
}
