//! `--mode auto`: the whole program finds out what its node is, and serves it as that.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use cni_bin::wire::{Command, Reply, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::world::{WEB, World, flags, pair, pair_of};
use crate::gateway::tests::sandbox::{eventually, sandboxed, sh};
use crate::tests::world::{request, sandbox};

/// Where it serves a host, should it be a DPU: the world's own DPU has the usual port.
const CHANNEL: &str = "127.0.0.1:9479";

/// `cni-node run --mode auto` on node `h1`.
struct Program {
    socket: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Program {
    async fn start(home: &Path) -> Self {
        let absent = home.join("absent.sock");
        let socket = home.join("cni.sock");
        let with = |flag: &str, path: &Path| format!("--{flag}{}", path.display());
        let more = [
            "--mode=auto".to_owned(),
            "--encap-ip=127.0.0.1".to_owned(),
            format!("--channel-address={CHANNEL}"),
            "--representors=veth".to_owned(),
            with("socket=", &socket),
            with("sb=unix:", &absent),
            with("ovs-db=unix:", &absent),
            with("ovn-rundir=", home),
        ];
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let run = flags(home, &more);
        let stop = CancellationToken::new();
        let until = stop.clone();
        let task = tokio::spawn(async move {
            Box::pin(crate::run::run(run, until)).await.unwrap();
        });
        eventually("it serves", || socket.exists() && readyz().is_some()).await;
        Self { socket, stop, task }
    }

    async fn ask(&self, request: &Request) -> Reply {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(&request.encode().unwrap()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        Reply::decode(&answer).unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        // The next one is not taken for this one.
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// What /readyz says; none while nobody answers.
fn readyz() -> Option<String> {
    let mut stream = TcpStream::connect("127.0.0.1:9476").ok()?;
    let question = "GET /readyz HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
    stream.write_all(question.as_bytes()).ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    Some(said)
}

fn says(what: &str) -> impl Fn() -> bool {
    move || readyz().is_some_and(|said| said.contains(what))
}

#[test]
fn a_node_is_served_as_what_its_pair_says_and_a_contradiction_is_told() {
    sandboxed(
        "host::tests::auto::a_node_is_served_as_what_its_pair_says_and_a_contradiction_is_told",
        async {
            let world = World::start().await;
            // A host: no Open vSwitch is asked for, and its pods come through the channel.
            let host = Program::start(&world.home).await;
            sandbox("web");
            let added = host.ask(&request(Command::Add, &WEB, "web", "eth0")).await;
            assert!(matches!(added, Reply::Result(Some(_))), "{added:?}");
            sh("ip netns exec web ping -c1 -W5 10.244.0.1");
            let said = readyz().unwrap();
            assert!(!said.contains("Open vSwitch"), "{said}");
            // Its part changes: it goes on as it began, and says that it must not.
            pair_of(&world.home, "h1", "h2");
            eventually("it complains", says("a Dpu says now that it is a DPU")).await;
            assert!(TcpStream::connect(CHANNEL).is_err());
            host.end().await;

            // A DPU: it listens for its host, and wants Open vSwitch.
            let dpu = Program::start(&world.home).await;
            eventually("it listens", || TcpStream::connect(CHANNEL).is_ok()).await;
            eventually("it wants Open vSwitch", says("Open vSwitch")).await;
            assert!(!says("a Dpu says now")());
            dpu.end().await;

            // In nobody's pair, and in none: a plain node.
            pair_of(&world.home, "d9", "h9");
            for there in [true, false] {
                if !there {
                    pair(&world.home, false);
                }
                let plain = Program::start(&world.home).await;
                eventually("it wants Open vSwitch", says("Open vSwitch")).await;
                assert!(TcpStream::connect(CHANNEL).is_err());
                plain.end().await;
            }
        },
    );
}
