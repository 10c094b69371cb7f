//! Neighbouring releases work together; strangers are told so.

use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::raw::{Raw, hello};
use super::world::World;
use crate::hello::Dialect;
use crate::proto::{Epoch, Hello, Reason, SessionResponse};
use crate::{Failure, LinkState};

const NEW: Dialect = Dialect {
    versions: 3..=4,
    features: &["a", "b", "c"],
};
const OLD: Dialect = Dialect {
    versions: 2..=3,
    features: &["c", "b", "x"],
};
const ANCIENT: Dialect = Dialect {
    versions: 1..=2,
    features: &[],
};

const ANY: &str = "127.0.0.1:0";

#[tokio::test(flavor = "multi_thread")]
async fn the_older_side_counts_whichever_it_is() {
    for (of_dpu, of_host, features) in [(NEW, OLD, ["c", "b"]), (OLD, NEW, ["b", "c"])] {
        let world = World::new();
        let dpu = world.dpu_at(ANY.parse().unwrap(), of_dpu).await;
        let mut raw = Raw::connect(dpu.address, &world.directory("h1")).await;
        let newest = Hello {
            version: of_host.newest(),
            ..hello()
        };
        let session = raw.hello(newest).await.unwrap();
        assert_eq!(session.welcome.version, 3);
        let host = world.host_speaking("h1", dpu.address, of_host);
        let LinkState::Up {
            features: both,
            epoch,
            release,
            ..
        } = host.up().await
        else {
            panic!("not up");
        };
        assert_eq!(both, features);
        assert_eq!((&*epoch.boot_id, &*release), ("boot-d1", "0.1.0"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_told_both_versions() {
    for (of_dpu, of_host, words) in [
        (NEW, ANCIENT, ["speaks version 2", "versions 3 to 4"]),
        // The host finds that it has forgotten what the DPU speaks.
        (ANCIENT, NEW, ["version 2", "versions 3 to 4"]),
    ] {
        let world = World::new();
        let dpu = world.dpu_at(ANY.parse().unwrap(), of_dpu).await;
        let host = world.host_speaking("h1", dpu.address, of_host);
        for word in words {
            host.down_for(word).await;
        }
        assert!(!world.card.log().iter().any(|one| one.starts_with("sync ")));
    }
    let world = World::new();
    let dpu = world.dpu_at(ANY.parse().unwrap(), NEW).await;
    let mut raw = Raw::connect(dpu.address, &world.directory("h1")).await;
    let status = raw.hello(hello()).await.err().unwrap();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(world.refused("version").await.sentence.contains("DPU d1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_hello_begins_no_session() {
    let world = World::new();
    let dpu = world.dpu().await;
    let mut raw = Raw::connect(dpu.address, &world.directory("h1")).await;
    let version = Hello {
        version: 0,
        ..hello()
    };
    let epoch = Hello {
        epoch: None,
        ..hello()
    };
    let boot_id = Hello {
        epoch: Some(Epoch {
            boot_id: "a\nb".to_owned(),
            process: 1,
        }),
        ..hello()
    };
    let features = Hello {
        features: vec!["x".repeat(4096)],
        ..hello()
    };
    for bad in [version, epoch, boot_id, features] {
        let status = raw.hello(bad).await.err().unwrap();
        assert_eq!(Failure::of(&status).unwrap().reason, Reason::Malformed);
    }
    world.refused("malformed").await;
    assert_eq!(world.seen.borrow().sessions, 0);
}

/// A Hello of tomorrow.
#[derive(Clone, PartialEq, prost::Message)]
struct NewHostMessage {
    #[prost(message, optional, tag = "1")]
    hello: Option<NewHello>,
    #[prost(string, tag = "99")]
    beside: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NewHello {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(string, repeated, tag = "2")]
    features: Vec<String>,
    #[prost(message, optional, tag = "3")]
    epoch: Option<Epoch>,
    #[prost(string, tag = "4")]
    release: String,
    #[prost(bytes = "vec", tag = "77")]
    news: Vec<u8>,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_host_says_beyond_our_version_is_passed_over() {
    let world = World::new();
    let dpu = world.dpu().await;
    let raw = Raw::connect(dpu.address, &world.directory("h1")).await;
    let hello = NewHostMessage {
        hello: Some(NewHello {
            version: 2,
            features: vec!["of tomorrow".to_owned()],
            epoch: hello().epoch,
            release: "9.0.0".to_owned(),
            news: vec![1, 2, 3],
        }),
        beside: "something".to_owned(),
    };
    // And a message that is none of those we know.
    let beside = NewHostMessage {
        hello: None,
        beside: "something else".to_owned(),
    };
    let mut grpc = tonic::client::Grpc::new(raw.channel.clone());
    grpc.ready().await.unwrap();
    let messages = futures::stream::iter([hello, beside]);
    // The stream stays open: what comes back would end with it.
    let messages = futures::StreamExt::chain(messages, futures::stream::pending());
    let codec: ProstCodec<NewHostMessage, SessionResponse> = ProstCodec::default();
    let path = "/outboard.dpu.v1.Channel/Session".parse().unwrap();
    let answer = grpc.streaming(Request::new(messages), path, codec).await;
    let mut answer = answer.unwrap().into_inner();
    let first = answer.message().await.unwrap().unwrap().message.unwrap();
    let crate::proto::session_response::Message::Welcome(welcome) = first else {
        panic!("{first:?}");
    };
    assert_eq!(welcome.version, 1);
    assert!(welcome.features.is_empty());
    assert_eq!(welcome.host, "h1");
    let seen = world.sees("the host", |seen| seen.alive).await;
    assert_eq!(seen.release, "9.0.0");
}
