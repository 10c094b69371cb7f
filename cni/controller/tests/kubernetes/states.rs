//! States of Subnets and Vpcs, as `kubectl get` shows them.

use crate::controller::{Controller, USUAL};
use crate::site::{DEADLINE, LEADER, Site, Space, client, create, fresh, gone, site, until};
use api::{Subnet, Usage, Vpc};
use cni_controller::lease::Candidate;
use cni_controller::report::{Board, SubnetState};
use cni_controller::{Turn, status};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

fn candidate() -> Candidate {
    Candidate {
        lease: "none".into(),
        identity: "test".into(),
        predecessors: None,
        duration: Duration::from_secs(3600),
    }
}

/// A writer of states; it ends with the value.
fn writer(url: &str, board: &Arc<Board>, turn: watch::Receiver<Turn>) -> JoinSet<()> {
    writer_of(url, board, candidate(), turn)
}

fn writer_of(
    url: &str,
    board: &Arc<Board>,
    candidate: Candidate,
    turn: watch::Receiver<Turn>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let stop = CancellationToken::new();
    let client = client(url, "controller");
    tasks.spawn(status::run(client, board.clone(), candidate, turn, stop));
    tasks
}

fn ready(subnet: &Subnet) -> Option<&Condition> {
    named(&subnet.status.as_ref()?.conditions, "Ready")
}

fn named<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition is `status` for `reason`, of the object's newest generation.
fn says(condition: Option<&Condition>, generation: Option<i64>, is: (&str, &str)) -> bool {
    condition.is_some_and(|condition| {
        (condition.status.as_str(), condition.reason.as_str()) == is
            && condition.observed_generation == generation
    })
}

fn subnet_says(subnet: &Subnet, status: &str, reason: &str) -> bool {
    says(ready(subnet), subnet.metadata.generation, (status, reason))
}

fn v4(subnet: &Subnet) -> Option<Usage> {
    subnet.status.as_ref()?.v4
}

#[tokio::test(flavor = "multi_thread")]
async fn states_are_what_the_leader_found() {
    let _leader = LEADER.lock().await;
    let site = site();
    a_subnet_says_how_it_is(&site).await;
    who_leads_no_more_writes_no_states(&site).await;
}

async fn a_subnet_says_how_it_is(site: &Site) {
    let space = Space::create(site.admin()).await;
    let url = site.server.url();
    let controller = Controller::start(&client(&url, "controller"), USUAL).await;
    let _writer = writer(&url, &controller.board, controller.turn.subscribe());
    let subnets: Api<Subnet> = Api::all(site.admin());
    let vpcs: Api<Vpc> = Api::all(site.admin());
    let merge = async |name: &str, spec: serde_json::Value| {
        let patch = Patch::Merge(json!({"spec": spec}));
        subnets
            .patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    };

    // Four addresses for pods.
    let name = fresh("states");
    let spec = json!({"cidrs": ["10.252.0.0/29"], "excludes": ["10.252.0.2"],
        "primary": true, "namespaces": [space.name]});
    create(&subnets, json!({"metadata": {"name": name}, "spec": spec})).await;
    let fresh_one = until(&subnets, &name, "ready", |s| {
        subnet_says(s, "True", "Ready")
    })
    .await;
    assert_eq!(
        v4(&fresh_one),
        Some(Usage {
            used: 0,
            available: 4
        })
    );
    assert_eq!(fresh_one.status.as_ref().unwrap().v6, None);
    assert_eq!(
        fresh_one.metadata.finalizers,
        Some(vec!["iaas.yusur.io/addresses".into()])
    );
    let since = ready(&fresh_one).unwrap().last_transition_time.clone();

    // Used ones are counted, and that is no transition.
    space.pods(0..2).await;
    let two = Some(Usage {
        used: 2,
        available: 2,
    });
    let used = until(&subnets, &name, "two used", |s| v4(s) == two).await;
    assert_eq!(ready(&used).unwrap().last_transition_time, since);
    merge(&name, json!({"excludes": []})).await;
    let three = Some(Usage {
        used: 2,
        available: 3,
    });
    let wider = |s: &Subnet| v4(s) == three && subnet_says(s, "True", "Ready");
    until(&subnets, &name, "the new generation", wider).await;

    // Full, and no longer.
    space.pods(2..5).await;
    let full = until(&subnets, &name, "full", |s| {
        subnet_says(s, "False", "NoAddressLeft")
    })
    .await;
    let message = &ready(&full).unwrap().message;
    assert!(
        message.contains(&name) && message.contains("delete pods"),
        "{message}"
    );
    assert!(ready(&full).unwrap().last_transition_time >= since);
    space.delete("p4").await;
    until(&subnets, &name, "ready again", |s| {
        subnet_says(s, "True", "Ready")
    })
    .await;

    // It is deleted while pods are in it.
    subnets
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    let deleting = until(&subnets, &name, "in use", |s| {
        ready(s).is_some_and(|c| c.reason == "InUse") && s.metadata.deletion_timestamp.is_some()
    });
    let message = ready(&deleting.await).unwrap().message.clone();
    assert!(message.contains("4 ports"), "{message}");
    for n in 0..4 {
        space.delete(&format!("p{n}")).await;
    }
    gone(&subnets, &name).await;

    // The same name again, in a Vpc that comes later.
    let blue = fresh("blue");
    let spec = json!({"cidrs": ["10.252.0.0/29"], "vpc": blue});
    create(&subnets, json!({"metadata": {"name": name}, "spec": spec})).await;
    let alone = until(&subnets, &name, "no Vpc", |s| {
        subnet_says(s, "False", "NoVpc")
    })
    .await;
    assert!(
        ready(&alone)
            .unwrap()
            .message
            .contains(&format!("no Vpc {blue}"))
    );
    create(&vpcs, json!({"metadata": {"name": blue}, "spec": {}})).await;
    until(&subnets, &name, "ready", |s| {
        subnet_says(s, "True", "Ready")
    })
    .await;
    let vpc = until(&vpcs, &blue, "lists its Subnets", |vpc| {
        let status = vpc.status.as_ref();
        status
            .is_some_and(|s| s.subnets == [name.clone()] && named(&s.conditions, "Ready").is_some())
    });
    let vpc = vpc.await;
    let conditions = &vpc.status.as_ref().unwrap().conditions;
    let generation = vpc.metadata.generation;
    assert!(says(
        named(conditions, "Ready"),
        generation,
        ("True", "Ready")
    ));
    assert!(says(
        named(conditions, "Egress"),
        generation,
        ("False", "Isolated")
    ));

    // One that overlaps is not ready and says with whom.
    let overlap = fresh("overlap");
    let spec = json!({"cidrs": ["10.252.0.0/24"], "vpc": blue});
    create(
        &subnets,
        json!({"metadata": {"name": overlap}, "spec": spec}),
    )
    .await;
    let wrong = until(&subnets, &overlap, "overlaps", |s| {
        subnet_says(s, "False", "Overlap")
    })
    .await;
    assert!(ready(&wrong).unwrap().message.contains(&name));
    for subnet in [&overlap, &name] {
        subnets
            .delete(subnet, &DeleteParams::default())
            .await
            .unwrap();
        gone(&subnets, subnet).await;
    }
    let vpc = until(&vpcs, &blue, "lists none", |vpc| {
        vpc.status.as_ref().is_some_and(|s| s.subnets.is_empty())
    });
    vpc.await;
    vpcs.delete(&blue, &DeleteParams::default()).await.unwrap();
}

/// What a process found while it led is not written when it leads no more.
async fn who_leads_no_more_writes_no_states(site: &Site) {
    let subnets: Api<Subnet> = Api::all(site.admin());
    let name = fresh("states");
    let spec = json!({"cidrs": ["10.253.0.0/24"]});
    let made = create(&subnets, json!({"metadata": {"name": name}, "spec": spec})).await;
    let [old, new] = [(); 2].map(|()| Arc::<Board>::default());
    let put = |board: &Board, used| {
        let v4 = Some(Usage { used, available: 1 });
        let state = SubnetState {
            v4,
            v6: None,
            ready: Ok(()),
            ports: 0,
            generation: 1,
        };
        board.put(|states| drop(states.subnets.insert(name.clone(), state)));
    };
    let uses = |used| move |subnet: &Subnet| v4(subnet).is_some_and(|usage| usage.used == used);

    // The old one's turn has run out, which it has not been told yet.
    put(&old, 1);
    let asleep = watch::Sender::new(Some(Instant::now()));
    let run_out = Candidate {
        duration: Duration::ZERO,
        ..candidate()
    };
    let _old = writer_of(&site.server.url(), &old, run_out, asleep.subscribe());
    let leads = watch::Sender::new(Some(Instant::now()));
    let _new = writer(&site.server.url(), &new, leads.subscribe());
    put(&new, 2);
    until(&subnets, &name, "written by the new one", uses(2)).await;
    // Their parts change.
    leads.send_replace(None);
    put(&new, 3);
    let back = watch::Sender::new(None);
    let _again = writer(&site.server.url(), &old, back.subscribe());
    put(&old, 4);
    back.send_replace(Some(Instant::now()));
    until(&subnets, &name, "written by the old one", uses(4)).await;

    let version = made.metadata.resource_version.unwrap();
    let mut all = subnets
        .watch(&WatchParams::default(), &version)
        .await
        .unwrap()
        .boxed();
    let mut seen = Vec::new();
    while seen.last() != Some(&4) {
        let event = tokio::time::timeout(DEADLINE, all.try_next())
            .await
            .unwrap();
        if let Some(WatchEvent::Modified(subnet)) = event.unwrap()
            && subnet.metadata.name.as_ref() == Some(&name)
        {
            seen.extend(v4(&subnet).map(|usage| usage.used));
        }
    }
    assert_eq!(seen, [2, 4]);
    // Nobody would take the finalizer off.
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    subnets
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    subnets
        .patch(&name, &PatchParams::default(), &none)
        .await
        .unwrap();
}
