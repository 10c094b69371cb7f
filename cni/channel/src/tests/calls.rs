//! Attach, detach, check: answers, errors, deadlines, and hosts that change their mind.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use tonic::{Code, Request};

use super::card::{attachment, key, refusal, wiring};
use super::raw::{Raw, hello};
use super::world::{World, soon};
use crate::proto::attach_progress::Progress;
use crate::proto::{AttachmentKey, DetachRequest, Reason, Trouble};
use crate::{Failure, LinkState};

#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_is_wired_installed_checked_and_detached() {
    let world = World::new();
    let dpu = world.dpu().await;
    let host = world.host("h1", dpu.address);
    let mut attaching = host
        .link
        .attach(attachment("a", 1), soon(10.0))
        .await
        .unwrap();
    assert_eq!(attaching.wiring().await, Ok(wiring("a")));
    assert_eq!(attaching.wiring().await, Ok(wiring("a")));
    attaching.installed().await.unwrap();
    // Without asking for the wiring, too.
    let attaching = host.link.attach(attachment("b", 2), soon(10.0)).await;
    attaching.unwrap().installed().await.unwrap();
    let checked = host.link.check(key("a"), 1, soon(10.0)).await;
    assert_eq!(checked, Ok(wiring("a")));
    host.link.detach(key("a"), 1, soon(10.0)).await.unwrap();
    assert_eq!(world.card.plugged(), ["b"]);
    let gone = host.link.check(key("a"), 1, soon(10.0)).await.unwrap_err();
    assert_eq!((gone.reason, gone.code), (Reason::NoPort, 100));
    assert_eq!(world.refused("no_port").await.peer, "h1");

    for (text, names) in [
        (
            world.metrics(),
            [
                "outboard_dpu_host_up 1",
                "outboard_dpu_sessions_total 1",
                r#"outboard_dpu_refused_total{reason="no_port"} 1"#,
                "# HELP outboard_dpu_heartbeat_age_seconds How long",
                r#"outboard_dpu_call_duration_seconds_count{verb="attach",outcome="ok"} 2"#,
                r#"outboard_dpu_call_duration_seconds_count{verb="check",outcome="no_port"} 1"#,
            ],
        ),
        (
            host.metrics(),
            [
                "outboard_channel_up 1",
                "outboard_channel_sessions_total 1",
                "outboard_channel_heartbeat_age_seconds 0",
                r#"outboard_channel_call_duration_seconds_count{verb="attach",outcome="ok"} 2"#,
                r#"outboard_channel_call_duration_seconds_count{verb="detach",outcome="ok"} 1"#,
                r#"outboard_channel_call_duration_seconds_count{verb="check",outcome="no_port"} 1"#,
            ],
        ),
    ] {
        for name in names {
            assert!(text.contains(name), "{name} in:\n{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_comes_unchanged_with_a_reason_nobody_knows_yet() {
    let world = World::new();
    let dpu = world.dpu().await;
    let host = world.host("h1", dpu.address);
    let mut attaching = host
        .link
        .attach(attachment("refused", 1), soon(10.0))
        .await
        .unwrap();
    assert_eq!(attaching.wiring().await, Err(refusal()));
    // One that the DPU counts as a refusal.
    let attaching = host.link.attach(attachment("taken", 1), soon(10.0)).await;
    let failure = attaching.unwrap().installed().await.unwrap_err();
    assert_eq!(failure.reason, Reason::FunctionTaken);
    assert_eq!(
        world.refused("function_taken").await.sentence,
        failure.cause
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_attach_is_undone() {
    let world = World::new();
    let dpu = world.dpu().await;
    let host = world.host("h1", dpu.address);
    let mut attaching = host
        .link
        .attach(attachment("slow", 1), soon(30.0))
        .await
        .unwrap();
    attaching.wiring().await.unwrap();
    assert_eq!(world.card.plugged(), ["slow"]);
    drop(attaching);
    world.card.done("undone slow", 1).await;
    assert!(world.card.plugged().is_empty());

    // One that was finished when nobody wanted it any more: the channel undoes it.
    let mut attaching = host
        .link
        .attach(attachment("stubborn", 2), soon(30.0))
        .await
        .unwrap();
    attaching.wiring().await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(50), attaching.installed());
    assert!(waiting.await.is_err());
    // The news of it is on its way.
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.card.enough.notify_one();
    world.card.done("detach stubborn", 1).await;
    assert!(world.card.plugged().is_empty());
    let given_up = r#"{verb="attach",outcome="given_up"} 2"#;
    assert!(host.metrics().contains(given_up), "{}", host.metrics());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_ends_an_attach_on_both_sides() {
    let world = World::new();
    let dpu = world.dpu().await;
    let host = world.host("h1", dpu.address);
    host.up().await;
    let began = Instant::now();
    let attaching = host.link.attach(attachment("slow", 1), soon(1.5)).await;
    let failure = attaching.unwrap().installed().await.unwrap_err();
    assert_eq!(failure.code, 11);
    assert!(failure.cause.contains("in time"), "{failure}");
    let took = began.elapsed().as_secs_f64();
    assert!((1.2..2.5).contains(&took), "{took}");
    world.card.done("undone slow", 1).await;

    // Nobody answers: the host's own clock ends it.
    dpu.end().await;
    host.down().await;
    let began = Instant::now();
    let attaching = host.link.attach(attachment("a", 2), soon(0.5)).await;
    let failure = attaching.err().unwrap();
    assert_eq!(failure.code, 11);
    assert!(
        failure.cause.contains("no session with DPU d1: "),
        "{failure}"
    );
    let detached = host.link.detach(key("a"), 2, soon(0.0)).await;
    assert_eq!(detached.unwrap_err().code, 11);
    assert!(began.elapsed().as_secs_f64() < 1.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_the_link_and_outlives_a_session() {
    let world = World::new();
    let dpu = world.dpu().await;
    let host = world.host("h1", dpu.address);
    // Before the link is up.
    let mut attaching = host
        .link
        .attach(attachment("slow", 1), soon(20.0))
        .await
        .unwrap();
    attaching.wiring().await.unwrap();
    host.set.lock().unwrap().push(attachment("slow", 1));
    let waiting = tokio::spawn(attaching.installed());
    world.card.done("attach slow", 1).await;
    let at = dpu.address;
    dpu.end().await;
    world.card.done("undone slow", 1).await;
    let dpu = world.dpu_at(at, crate::hello::Dialect::default()).await;
    // The same attempt, in the next session, after the full set.
    world.card.done("attach slow", 2).await;
    let log = world.card.log();
    let last = |what: &str| log.iter().rposition(|one| one == what).unwrap();
    assert!(last("synced h1 slow") < last("attach slow"), "{log:?}");
    assert!(last("undone slow") < last("sync h1 slow"), "{log:?}");
    waiting.abort();
    dpu.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_and_fifty_six_at_once() {
    let world = World::new();
    let dpu = world.dpu().await;
    let host = world.host("h1", dpu.address);
    let attaches = (0..256).map(|number| {
        let link = host.link.clone();
        async move {
            let attachment = attachment(&format!("s{number}"), number + 1);
            let mut attaching = link.attach(attachment, soon(20.0)).await?;
            attaching.wiring().await?;
            attaching.installed().await
        }
    });
    let began = Instant::now();
    let ends: Vec<Result<(), Failure>> = join_all(attaches).await;
    assert!(ends.iter().all(Result::is_ok), "{ends:?}");
    assert_eq!(world.card.plugged().len(), 256);
    assert!(began.elapsed() < Duration::from_secs(10));

    // All given up at once: the session takes no harm.
    let mut slow = Vec::new();
    for number in 0..256 {
        let attachment = attachment(&format!("slow{number}"), number + 1);
        let mut attaching = host.link.attach(attachment, soon(60.0)).await.unwrap();
        attaching.wiring().await.unwrap();
        slow.push(attaching);
    }
    drop(slow);
    for number in 0..256 {
        world.card.done(&format!("undone slow{number}"), 1).await;
    }
    assert_eq!(world.card.plugged().len(), 256);
    assert_eq!(world.seen.borrow().sessions, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn detach_and_check_wait_for_the_link_in_tasks_of_their_own() {
    let world = World::new();
    let dpu = world.dpu().await;
    let host = world.host("h1", dpu.address);
    let (one, two) = (host.link.clone(), host.link.clone());
    let detached = tokio::spawn(async move { one.detach(key("a"), 1, soon(10.0)).await });
    let checked = tokio::spawn(async move { two.check(key("a"), 1, soon(10.0)).await });
    detached.await.unwrap().unwrap();
    assert_eq!(checked.await.unwrap().unwrap_err().code, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_bounded_and_told_so() {
    let world = World::new();
    let dpu = world.dpu().await;
    let mut raw = Raw::connect(dpu.address, &world.directory("h1")).await;
    let mut session = raw.hello(hello()).await.unwrap();
    session.full_set(Vec::new());
    session.next().await.unwrap();
    let id = session.welcome.session.clone();
    let beating = tokio::spawn(async move { while let Ok(Some(_)) = session.next().await {} });
    let mut streams = Vec::new();
    let mut refused = 0;
    for number in 0..520 {
        let attachment = attachment(&format!("slow{number}"), 1);
        let mut stream = match raw.attach(&id, Some(attachment)).await {
            Ok(stream) => stream,
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted);
                let failure = Failure::of(&status).unwrap();
                assert_eq!((failure.reason, failure.code), (Reason::NotReady, 11));
                refused += 1;
                continue;
            }
        };
        let first = stream.message().await.unwrap().unwrap().progress;
        assert!(matches!(first, Some(Progress::Wiring(_))));
        streams.push(stream);
    }
    assert_eq!(refused, 520 - 512);
    world.refused("too_many_calls").await;
    // There is room again.
    drop(streams.pop());
    world.card.done("undone slow511", 1).await;
    let mut again = Err(tonic::Status::unknown(""));
    for _ in 0..100 {
        again = raw.attach(&id, Some(attachment("a", 1))).await;
        if again.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    again.unwrap();
    beating.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_is_refused_before_anything_is_done() {
    let world = World::new();
    let dpu = world.dpu().await;
    let mut raw = Raw::connect(dpu.address, &world.directory("h1")).await;
    let session = raw.hello(hello()).await.unwrap();
    let id = &session.welcome.session;
    let mut uid = attachment("a", 1);
    if let Some(crate::proto::attachment::Subject::Pod(pod)) = &mut uid.subject {
        pod.uid = "../../etc".to_owned();
    }
    for (bad, code) in [
        (None, 7),
        (Some(attachment("../x", 1)), 4),
        (Some(attachment("a", 0)), 7),
        (Some(attachment("host", 1)), 7),
        (Some(uid), 7),
    ] {
        let status = raw.attach(id, bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let failure = Failure::of(&status).unwrap();
        assert_eq!((failure.reason, failure.code), (Reason::Malformed, code));
    }
    let request = Request::new(DetachRequest {
        session: id.clone(),
        key: Some(AttachmentKey::default()),
        attempt: 1,
    });
    let status = raw.client.detach(request).await.unwrap_err();
    assert_eq!(Failure::of(&status).unwrap().reason, Reason::Malformed);
    assert!(world.refused("malformed").await.sentence.contains("no key"));
    assert!(world.card.log().is_empty(), "{:?}", world.card.log());
    // A host of ours does not even send it.
    let host = world.host("h1", dpu.address);
    let failure = host.link.attach(attachment("a", 0), soon(5.0)).await;
    assert_eq!(failure.err().unwrap().reason, Reason::Malformed);
}

#[tokio::test(flavor = "multi_thread")]
async fn troubles_go_both_ways_at_once() {
    let world = World::new();
    let dpu = world.dpu().await;
    let host = world.host("h1", dpu.address);
    host.up().await;
    let trouble = |sentence: &str| {
        vec![Trouble {
            sentence: sentence.to_owned(),
            limits: true,
        }]
    };
    let began = Instant::now();
    world.card.troubles.send_replace(trouble("no OVS"));
    let heard = |state: &LinkState| matches!(state, LinkState::Up { troubles, .. } if troubles == &trouble("no OVS"));
    host.is("the DPU's trouble", heard).await;
    assert!(began.elapsed() < Duration::from_millis(500));
    host.troubles.send_replace(trouble("no function"));
    let seen = world
        .sees("the host's trouble", |seen| !seen.troubles.is_empty())
        .await;
    assert_eq!(seen.troubles, trouble("no function"));
    assert!(began.elapsed() < Duration::from_secs(1));
}
