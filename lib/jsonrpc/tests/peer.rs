//! The peer over real streams: in-memory duplex pipes and unix sockets.
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use jsonrpc::{Call, Client, Dialect, Error, Inbound, Link, LinkError, Message, Options};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::Instant;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// Answers every request with its own parameters, `fail` with an error, and never answers `mute`.
fn serve(dialect: Dialect) -> Client {
    let (near, far) = duplex(1024);
    let (server, mut incoming) = Client::start(far, dialect);
    tokio::spawn(async move {
        while let Some(call) = incoming.recv().await {
            match call {
                Call::Request { id, method, .. } if method == "fail" => {
                    server
                        .refuse(&id, &json!({"code": 3, "message": "no"}))
                        .unwrap();
                }
                Call::Request { method, .. } if method == "mute" => {}
                Call::Request { id, params, .. } => {
                    server
                        .reply(&id, &params.decode::<Value>().unwrap())
                        .unwrap();
                }
                Call::Notification { method, params } => {
                    server
                        .notify(&method, &params.decode::<Value>().unwrap())
                        .unwrap();
                }
            }
        }
    });
    Client::start(near, dialect).0
}

#[tokio::test]
async fn calls_in_flight_get_their_own_answers() {
    for dialect in [Dialect::V1, Dialect::V2] {
        let client = serve(dialect);
        let calls = (0..200u64).map(|n| {
            let client = client.clone();
            tokio::spawn(
                async move { client.call::<_, Vec<u64>>("id", [n], soon()).await.unwrap() },
            )
        });
        for (n, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
            assert_eq!(call.await.unwrap(), [n as u64]);
        }
    }
}

#[tokio::test]
async fn every_kind_of_failure_is_told_apart() {
    let client = serve(Dialect::V2);
    let refused = client
        .call::<_, Value>("fail", (), soon())
        .await
        .unwrap_err();
    assert_eq!(refused.to_string(), "fail was refused: no (code 3)");
    let wrong = client
        .call::<_, u64>("id", "text", soon())
        .await
        .unwrap_err();
    assert!(
        matches!(wrong, Error::Decode { what: "result", .. }),
        "{wrong}"
    );
    let late = Instant::now() + Duration::from_millis(20);
    let timeout = client.call::<_, Value>("mute", (), late).await.unwrap_err();
    assert!(matches!(timeout, Error::Timeout { .. }), "{timeout}");
}

#[tokio::test]
async fn calls_fail_when_the_peer_goes_and_ever_after() {
    let (near, far) = duplex(1024);
    let (client, mut incoming) = Client::start(near, Dialect::V1);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.call::<_, Value>("m", (), soon()).await }
    });
    let mut far = far;
    let mut request = vec![0; 16];
    far.read_exact(&mut request).await.unwrap();
    drop(far);
    assert!(matches!(
        waiting.await.unwrap(),
        Err(Error::Closed {
            reason: LinkError::Eof,
            ..
        })
    ));
    assert!(matches!(
        client.call::<_, Value>("m", (), soon()).await,
        Err(Error::Closed { .. })
    ));
    assert!(incoming.recv().await.is_none());
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_stream() {
    let (near, mut far) = duplex(1024);
    let (client, incoming) = Client::start(near, Dialect::V1);
    drop((client, incoming));
    assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn notifications_pass_in_both_directions_and_dialects() {
    for dialect in [Dialect::V1, Dialect::V2] {
        let (near, far) = duplex(1024);
        let (here, _) = Client::start(near, dialect);
        let (_there, mut incoming) = Client::start(far, dialect);
        here.notify("update", &json!(["x"])).unwrap();
        let Some(Call::Notification { method, params }) = incoming.recv().await else {
            panic!()
        };
        assert_eq!((method.as_str(), params.get()), ("update", r#"["x"]"#));
    }
}

#[tokio::test]
async fn echo_is_answered_while_nobody_consumes() {
    let (near, mut far) = duplex(1 << 20);
    let mut link = Link::open(near, &Options::new(Dialect::V1));
    let large = json!({"id": 1, "result": "x".repeat(300 << 10), "error": null}).to_string();
    far.write_all(large.as_bytes()).await.unwrap();
    far.write_all(br#"{"method":"echo","id":"echo","params":[]}"#)
        .await
        .unwrap();
    let expected = br#"{"id":"echo","result":[],"error":null}"#;
    let mut answer = vec![0; expected.len()];
    far.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, expected);
    let first = link.recv().await.unwrap();
    assert!(first.is_large());
    assert!(matches!(
        first.parse(),
        Ok(Message::Response {
            id: Some(1),
            outcome: Ok(_)
        })
    ));
}

/// Both sides write far more than the pipe holds before either looks at what it received.
#[tokio::test]
async fn two_sides_that_write_at_once_do_not_block_each_other() {
    let (near, far) = duplex(64);
    let options = Options::new(Dialect::V2);
    let (mut a, mut b) = (Link::open(near, &options), Link::open(far, &options));
    let params = "y".repeat(1000);
    for _ in 0..500 {
        a.sender().notify("m", &params).unwrap();
        b.sender().notify("m", &params).unwrap();
    }
    for _ in 0..500 {
        for link in [&mut a, &mut b] {
            let inbound: Inbound = link.recv().await.unwrap();
            assert!(matches!(inbound.parse(), Ok(Message::Notification { .. })));
        }
    }
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_link() {
    let (near, mut far) = duplex(1 << 20);
    let options = Options {
        max_frame: 1000,
        ..Options::new(Dialect::V2)
    };
    let mut link = Link::open(near, &options);
    far.write_all(format!("{{\"method\":\"{}", "z".repeat(2000)).as_bytes())
        .await
        .unwrap();
    for _ in 0..2 {
        assert!(matches!(
            link.recv().await,
            Err(LinkError::TooLarge { limit: 1000 })
        ));
    }
}

#[tokio::test]
async fn what_waits_for_a_slow_consumer_is_bounded() {
    let (near, mut far) = duplex(4096);
    let options = Options {
        max_frame: 16 << 10,
        ..Options::new(Dialect::V2)
    };
    let mut link = Link::open(near, &options);
    let message = json!({"method": "m", "params": "p".repeat(8000)}).to_string();
    let flood = tokio::spawn(async move {
        for _ in 0..100 {
            far.write_all(message.as_bytes()).await.unwrap();
        }
        far
    });
    let stuck = tokio::time::timeout(Duration::from_millis(100), async { flood.await.unwrap() });
    assert!(
        stuck.await.is_err(),
        "100 messages fit into a budget of two"
    );
    for _ in 0..2 {
        link.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_cut_message_is_told_from_a_clean_end() {
    let (near, mut far) = duplex(4096);
    let mut link = Link::open(near, &Options::new(Dialect::V2));
    far.write_all(b"{\"method\":").await.unwrap();
    drop(far);
    assert!(matches!(link.recv().await, Err(LinkError::Truncated)));
}
