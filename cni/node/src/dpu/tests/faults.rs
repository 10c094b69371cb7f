//! cni-node killed between any two steps: what the next start and the host's full set make of it.

use std::sync::Arc;

use super::card::{Ask, Card, Dpu, place};
use super::{DB, HOST, WEB};
use crate::gateway::tests::sandbox::{eventually, sandboxed, sh};
use crate::reconcile;

/// Dies at a failpoint, as if the process had been killed there.
async fn die(card: &Card, point: &'static str, ask: Ask) {
    let dpu = card.dpu().await;
    if point_is_of_detach(point) {
        dpu.attach(&ask).await.unwrap();
    }
    fail::cfg(point, "panic").unwrap();
    let Dpu { node, ports, .. } = dpu;
    let journal = Arc::downgrade(&node);
    let task = tokio::spawn(async move {
        let dpu = Dpu {
            ports,
            ..Dpu::of(node)
        };
        if point_is_of_detach(point) {
            dpu.detach(&ask).await.map(drop)
        } else {
            dpu.attach(&ask).await.map(drop)
        }
    });
    assert!(
        task.await.unwrap_err().is_panic(),
        "{point} was not reached"
    );
    fail::remove(point);
    eventually("the journal is free", || journal.strong_count() == 0).await;
}

fn point_is_of_detach(point: &str) -> bool {
    matches!(
        point,
        "dpu::del_begun" | "dpu::unplugged" | "dpu::forgotten"
    )
}

#[test]
fn an_operation_killed_between_any_two_steps_is_put_right_by_the_next_start_and_full_set() {
    sandboxed(
        "dpu::tests::faults::an_operation_killed_between_any_two_steps_is_put_right_by_the_next_start_and_full_set",
        async {
            let _scenario = fail::FailScenario::setup();
            let card = Card::start(2).await;
            card.allocate(&WEB, HOST, 5);
            card.allocate(&DB, HOST, 6);
            let bystander = Ask::new(&DB, "db", 1, 1);
            let wiring = card.dpu().await.attach(&bystander).await.unwrap();
            place(1, "db", "eth0", &wiring);
            // With and without the host wanting it still.
            let rounds = crate::dpu::FAILPOINTS
                .into_iter()
                .flat_map(|point| [(point, true), (point, false)]);
            for (number, (point, wanted)) in (0u64..).zip(rounds) {
                let web = Ask {
                    attempt: 10 + number,
                    ..Ask::new(&WEB, "s1", 0, 0)
                };
                die(&card, point, web).await;
                let dpu = card.dpu().await;
                assert_eq!(
                    reconcile::plan::plan(&reconcile::observe(&dpu.node).await.unwrap()),
                    Vec::new(),
                    "{point}"
                );
                let recorded = matches!(
                    point,
                    "dpu::recorded" | "dpu::installed" | "dpu::del_begun" | "dpu::unplugged"
                );
                let left = dpu.left(&card);
                assert_eq!(
                    left.len(),
                    if recorded { 4 } else { 2 },
                    "{point}: {left:?}"
                );
                let set: &[&Ask] = if wanted {
                    &[&bystander, &web]
                } else {
                    &[&bystander]
                };
                for (sandbox, outcome) in dpu.sync(set).await {
                    outcome.unwrap_or_else(|failure| panic!("{point}, {sandbox}: {failure:?}"));
                }
                let left = dpu.left(&card);
                assert_eq!(left.len(), if wanted { 4 } else { 2 }, "{point}: {left:?}");
                if wanted {
                    card.world
                        .ovn
                        .vsctl("wait-until Interface pf0vf0 external_ids:ovn-installed=true");
                    dpu.check(&web).await.unwrap();
                    dpu.detach(&web).await.unwrap();
                }
                assert_eq!(dpu.left(&card).len(), 2, "{point}");
                eventually("the link is down", || !super::is_up(0)).await;
                // The bystander never notices.
                sh("ip netns exec db ip link show eth0 | grep -q LOWER_UP");
                let node = Arc::downgrade(&dpu.node);
                drop(dpu);
                eventually("the node is gone", || node.strong_count() == 0).await;
            }
        },
    );
}
