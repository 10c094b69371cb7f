//! Full sets beside attaches that come and go.

use std::time::Duration;

use super::card::{attachment, wiring};
use super::raw::{Raw, hello};
use super::world::{World, soon};
use crate::Failure;
use crate::proto::session_response::Message as FromDpu;
use crate::proto::synced_attachment::Outcome;
use crate::proto::{Reason, Synced};

#[tokio::test(flavor = "multi_thread")]
async fn an_attach_that_begins_after_a_set_was_taken_waits_for_its_answer() {
    let world = World::new();
    let dpu = world.dpu().await;
    let host = world.host("h1", dpu.address);
    host.up().await;
    world.card.open.send_replace(false);
    host.set.lock().unwrap().push(attachment("a", 1));
    host.link.sync_now();
    world.card.done("sync h1 a", 1).await;
    host.set.lock().unwrap().push(attachment("b", 2));
    let link = host.link.clone();
    let attaching = tokio::spawn(async move {
        let attaching = link.attach(attachment("b", 2), soon(10.0)).await?;
        attaching.installed().await
    });
    // More than one wish while a set is under way is one more set.
    for _ in 0..3 {
        host.link.sync_now();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!world.card.log().contains(&"attach b".to_owned()));
    world.card.open.send_replace(true);
    attaching.await.unwrap().unwrap();
    world.card.done("synced h1 a,b", 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let log = world.card.log();
    let syncs = log.iter().filter(|one| one.starts_with("sync "));
    assert_eq!(syncs.count(), 3, "{log:?}");
    assert_eq!(world.card.plugged(), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_left_the_set_while_it_was_under_way_is_detached_once_more() {
    let world = World::new();
    let dpu = world.dpu().await;
    world.card.open.send_replace(false);
    let host = world.host("h1", dpu.address);
    *host.set.lock().unwrap() = vec![attachment("a", 1), attachment("b", 2), attachment("c", 3)];
    world.card.done("sync h1 a,b,c", 1).await;
    // One is gone, one was asked for anew.
    *host.set.lock().unwrap() = vec![attachment("a", 1), attachment("c", 4)];
    world.card.open.send_replace(true);
    host.up().await;
    world.card.done("detach b", 1).await;
    world.card.done("detach c", 1).await;
    assert_eq!(world.card.plugged(), ["a"]);
    let mut outcomes = host.link.synced();
    let outcomes = outcomes.borrow_and_update().clone();
    let first = outcomes.first().unwrap().outcome.clone();
    assert_eq!(first, Some(Outcome::Wiring(wiring("a"))));
}

async fn synced(session: &mut super::raw::Session) -> Synced {
    match session.next().await.unwrap().unwrap() {
        FromDpu::Synced(synced) => synced,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_looked_at_as_a_whole_and_one_by_one() {
    let world = World::new();
    let dpu = world.dpu().await;
    let mut raw = Raw::connect(dpu.address, &world.directory("h1")).await;
    let mut session = raw.hello(hello()).await.unwrap();
    // One that is malformed does not keep the others out.
    let bad = attachment("b", 0);
    session.full_set(vec![attachment("a", 1), bad, attachment("c", 3)]);
    let answers = synced(&mut session).await.attachments;
    let failures: Vec<_> = answers
        .iter()
        .filter_map(|answer| match &answer.outcome {
            Some(Outcome::Failure(failure)) => Some((answer.key.clone().unwrap(), failure)),
            _ => None,
        })
        .collect();
    let [(key, failure)] = failures.as_slice() else {
        panic!("{answers:?}");
    };
    assert_eq!(key.sandbox, "b");
    assert_eq!(failure.reason(), Reason::Malformed);
    assert_eq!(answers.len(), 3);
    assert_eq!(world.card.plugged(), ["a", "c"]);
    // The largest one there may be.
    let name = |number: u64| format!("s{number:0200}");
    let set = |count| (1..=count).map(move |n| attachment(&name(n), n)).collect();
    session.full_set(set(4096));
    assert_eq!(synced(&mut session).await.attachments.len(), 4096);
    // Too many; two of one key; a set before the former one was answered; a second Hello.
    session.full_set(set(4097));
    let end = session.next().await.unwrap_err();
    assert!(end.message().contains("4097"), "{end}");
    assert_eq!(world.card.plugged().len(), 4096);

    let mut raw = Raw::connect(dpu.address, &world.directory("h1")).await;
    let mut session = raw.hello(hello()).await.unwrap();
    session.full_set(vec![attachment("a", 1), attachment("a", 2)]);
    let end = session.next().await.unwrap_err();
    assert!(end.message().contains("two attachments"), "{end}");

    let mut raw = Raw::connect(dpu.address, &world.directory("h1")).await;
    let mut session = raw.hello(hello()).await.unwrap();
    world.card.open.send_replace(false);
    session.full_set(Vec::new());
    session.full_set(Vec::new());
    let end = session.next().await.unwrap_err();
    assert!(end.message().contains("before the former"), "{end}");
    world.card.open.send_replace(true);

    let mut raw = Raw::connect(dpu.address, &world.directory("h1")).await;
    let mut session = raw.hello(hello()).await.unwrap();
    session.say(crate::proto::session_request::Message::Hello(hello()));
    let end = session.next().await.unwrap_err();
    assert!(end.message().contains("second Hello"), "{end}");
    assert_eq!(Failure::of(&end).unwrap().reason, Reason::NoSession);
    world.refused("malformed").await;
}
