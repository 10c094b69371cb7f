//! The pure core: from any state one plan leads to where nothing is left to do, and hearts are heard right.

use super::desired::desired;
use super::heartbeat::{Heartbeats, LOST, Pulse};
use super::plan::{Action, plan};
use crate::index::{Dirty, Index, Indexed as _, NodeEntry, Said, Settings};
use api::dpu::READY;
use api::{Dpu, names};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(30);

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn put_dpu(index: &mut Index, name: &str, created: i64, nodes: (&str, &str), status: &Value) {
    let dpu: Dpu = serde_json::from_value(json!({
        "apiVersion": "iaas.yusur.io/v1", "kind": "Dpu",
        "metadata": {"name": name, "uid": name, "generation": 1, "creationTimestamp": time(created)},
        "spec": {"dpuNode": nodes.0, "hostNode": nodes.1, "address": "198.18.0.12"}, "status": status,
    }))
    .unwrap();
    dpu.put(index, &mut Dirty::default());
}

fn put_node(index: &mut Index, name: &str, is_host: bool, memory: Option<&str>, said: bool) {
    let mode = if is_host { "host" } else { "plain" };
    let condition =
        json!({"type": names::NODE_DPU_READY, "status": "True", "reason": "Old", "message": "old"});
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": name, "uid": name, "labels": {"iaas.yusur.io/mode": mode},
            "annotations": {"iaas.yusur.io/chassis": memory.unwrap_or_default()}},
        "status": {"conditions": if said { vec![condition] } else { vec![] }},
    }))
    .unwrap();
    node.put(index, &mut Dirty::default());
}

fn status(heartbeat: Option<i64>, seen: &str, total: u32, ready: Option<&str>) -> Value {
    let condition = |type_: &str, status: &str, reason: &str| json!({"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": time(0)});
    let ready = ready.map(|reason| condition(READY, "False", reason));
    let conditions: Vec<Value> = [condition("HostSeen", seen, "x")]
        .into_iter()
        .chain(ready)
        .collect();
    json!({"conditions": conditions, "lastHeartbeat": heartbeat.map(time), "functions": {"total": total, "free": 0}})
}

/// What the API server would show after the actions.
fn carry_out(index: &mut Index, actions: Vec<Action>) {
    for action in actions {
        match action {
            Action::Dpu {
                name, conditions, ..
            } => {
                let entry = index.dpus.get_mut(&name).unwrap();
                let all = &mut entry.status.conditions;
                all.retain(|old| conditions.iter().all(|new| new.type_ != old.type_));
                all.extend(conditions);
            }
            Action::Memory { name, chassis } => {
                let entry = NodeEntry {
                    remembered: chassis,
                    ..index.nodes[&name].clone()
                };
                index.nodes.insert(name, entry);
            }
            Action::Node { name, verdict, .. } => {
                index.nodes.get_mut(&name).unwrap().dpu_ready = verdict.map(|verdict| Said {
                    status: verdict.status.to_owned(),
                    reason: verdict.reason.to_owned(),
                    message: verdict.sentence,
                });
            }
        }
    }
}

#[derive(Clone, Debug)]
struct RandomDpu {
    created: i64,
    dpu: usize,
    host: usize,
    heartbeat: Option<i64>,
    seen: bool,
    total: u32,
    lost: bool,
}

fn dpu() -> impl Strategy<Value = RandomDpu> {
    let beat = prop::option::of(0i64..100);
    (
        0i64..3,
        0usize..3,
        0usize..3,
        beat,
        any::<bool>(),
        0u32..2,
        any::<bool>(),
    )
        .prop_map(
            |(created, dpu, host, heartbeat, seen, total, lost)| RandomDpu {
                created,
                dpu,
                host,
                heartbeat,
                seen,
                total,
                lost,
            },
        )
}

proptest! {
    #[test]
    fn a_plan_after_it_was_carried_out_is_empty(
        dpus in prop::collection::vec(dpu(), 0..5),
        nodes in prop::collection::vec((any::<bool>(), prop::option::of("[a-z]{1,3}"), any::<bool>()), 6),
        missing in 0usize..8,
    ) {
        let all = ["d0", "d1", "d2", "h0", "h1", "h2"];
        let mut index = Index::new(Settings::default());
        for (n, (is_host, memory, said)) in nodes.iter().enumerate().filter(|(n, _)| *n != missing) {
            put_node(&mut index, all[n], *is_host, memory.as_deref(), *said);
        }
        for (n, one) in dpus.iter().enumerate() {
            let seen = if one.seen { "True" } else { "False" };
            let status = status(one.heartbeat, seen, one.total, one.lost.then_some(LOST));
            put_dpu(&mut index, &format!("p{n}"), one.created, (all[one.dpu], all[3 + one.host]), &status);
        }
        let now = Instant::now();
        let mut heartbeats = Heartbeats::new(PATIENCE);
        heartbeats.observe(&index, now, time(100));
        let says = desired(&index, &heartbeats.pulses(now));
        let actions = plan(&index, &says, time(100));
        carry_out(&mut index, actions);
        heartbeats.observe(&index, now, time(101));
        let again = desired(&index, &heartbeats.pulses(now));
        prop_assert_eq!(plan(&index, &again, time(101)), vec![]);
        // A node is served by one DPU at most, and each DPU serves one host at most.
        let memories = index.nodes.keys().filter(|name| index.pair_of(name).is_some());
        let mut served: Vec<&str> = memories
            .filter_map(|name| Some(index.pair_of(name)?.dpu_node.as_str()))
            .collect();
        let count = served.len();
        served.sort_unstable();
        served.dedup();
        prop_assert_eq!(served.len(), count);
    }
}

#[test]
fn a_heart_is_heard_by_its_changes_and_not_by_the_clock() {
    let mut index = Index::new(Settings::default());
    let beat = |index: &mut Index, at: Option<i64>, ready: Option<&str>| {
        put_dpu(index, "p", 0, ("d1", "h1"), &status(at, "True", 1, ready));
    };
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let mut hearts = Heartbeats::new(PATIENCE);
    beat(&mut index, None, None);
    hearts.observe(&index, at(0), time(0));
    assert_eq!(
        (hearts.pulse("p", at(99)), hearts.next()),
        (Pulse::Never, None)
    );
    // Its clock is years behind ours.
    beat(&mut index, Some(-100_000_000), None);
    hearts.observe(&index, at(10), time(10));
    assert_eq!(hearts.pulse("p", at(39)), Pulse::Beats);
    assert_eq!(hearts.pulse("p", at(40)), Pulse::Lost);
    assert_eq!(hearts.next(), Some(at(40)));
    hearts.observe(&index, at(41), time(41));
    assert_eq!(
        (hearts.pulse("p", at(41)), hearts.next()),
        (Pulse::Lost, None)
    );
    beat(&mut index, Some(-99_999_990), None);
    hearts.observe(&index, at(50), time(50));
    assert_eq!(hearts.pulse("p", at(79)), Pulse::Beats);
    // A new leader gives it time, unless the former one has found it lost and nothing has come since.
    for (ready, heartbeat, pulse) in [
        (None, 0, Pulse::Beats),
        (Some(LOST), 0, Pulse::Lost),
        (Some(LOST), 99, Pulse::Beats),
        (Some("HostNotSeen"), 0, Pulse::Beats),
    ] {
        beat(&mut index, Some(heartbeat), ready);
        let mut fresh = Heartbeats::new(PATIENCE);
        fresh.observe(&index, at(0), time(100));
        assert_eq!(fresh.pulse("p", at(1)), pulse, "{ready:?} {heartbeat}");
    }
    // Another object of the same name is another heart.
    index.dpus.clear();
    hearts.observe(&index, at(60), time(60));
    assert_eq!(hearts.pulse("p", at(60)), Pulse::Never);
}

#[test]
fn what_is_new_is_told_once() {
    let mut index = Index::new(Settings::default());
    for node in ["d1", "h1"] {
        put_node(&mut index, node, node == "h1", None, false);
    }
    put_dpu(
        &mut index,
        "p",
        0,
        ("d1", "h1"),
        &status(Some(1), "False", 1, None),
    );
    put_dpu(
        &mut index,
        "q",
        1,
        ("d2", "h1"),
        &status(Some(1), "True", 1, None),
    );
    let now = Instant::now();
    let mut hearts = Heartbeats::new(PATIENCE);
    hearts.observe(&index, now, time(2));
    let actions = plan(&index, &desired(&index, &hearts.pulses(now)), time(2));
    let news: Vec<(String, Vec<&str>)> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Dpu { name, news, .. } => {
                Some((name.clone(), news.iter().map(|one| one.reason).collect()))
            }
            _ => None,
        })
        .collect();
    // The one that is beaten says so in both conditions and is reported of once.
    let expected = [
        ("p".to_owned(), vec!["HostNotSeen"]),
        ("q".to_owned(), vec!["Beaten"]),
    ];
    assert_eq!(news, expected);
    assert!(
        matches!(&actions[0], Action::Memory { name, chassis } if name == "h1" && chassis.as_deref() == Some("d1"))
    );
    assert!(
        actions
            .iter()
            .any(|action| action.to_string() == "Node h1: its DPU is ready: False (HostNotSeen)")
    );
}
