//! The real program, and a cni-node that speaks the wire and does what a test tells it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by several test programs, each of which uses a part"
)]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use cni_bin::wire::{Reply, Request};
use serde_json::{Value, json};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_outboard");

/// What the fake does with one connection.
pub enum Reaction {
    /// Reads the request and writes these bytes.
    Bytes(Vec<u8>),
    /// Reads the request and closes without an answer.
    Silence,
    /// Closes without reading.
    Reset,
    /// Reads the request and answers only when the client is gone.
    Never,
}

pub fn reply(value: &Value) -> Reaction {
    Reaction::Bytes(serde_json::to_vec(value).unwrap())
}

pub fn nothing() -> Reaction {
    Reaction::Bytes(Reply::Result(None).encode().unwrap())
}

/// A directory with a socket in it.
pub struct Home(tempfile::TempDir);

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.path().join("cni.sock")
    }

    /// Serves one connection per reaction, then stops listening and removes the socket. The requests come out.
    pub fn serve(&self, reactions: Vec<Reaction>) -> Receiver<Request> {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let path = self.socket();
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for reaction in reactions {
                let (stream, _) = listener.accept().unwrap();
                react(stream, reaction, &sender);
            }
            let _ = std::fs::remove_file(path);
        });
        requests
    }

    /// A configuration for this home's socket, with `extra` keys.
    pub fn config(&self, version: &str, extra: &Value) -> String {
        let mut config = json!({
            "cniVersion": version, "name": "outboard", "type": "outboard", "socket": self.socket(),
        });
        for (key, value) in extra.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config.to_string()
    }
}

fn react(mut stream: UnixStream, reaction: Reaction, requests: &Sender<Request>) {
    if matches!(reaction, Reaction::Reset) {
        return;
    }
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    // Before the client can see an answer or the end: a test may look as soon as the program has ended.
    let _ = requests.send(Request::decode(&bytes).unwrap());
    match reaction {
        Reaction::Bytes(answer) => {
            // A client that has given up is a client that a test wanted to give up.
            let _ = stream.write_all(&answer);
        }
        Reaction::Never => wait_until_closed(&stream),
        Reaction::Silence | Reaction::Reset => {}
    }
}

/// The client shut down its write side, so only a write tells that it is gone.
fn wait_until_closed(stream: &UnixStream) {
    use std::os::fd::AsFd;
    let mut fds = [nix::poll::PollFd::new(
        stream.as_fd(),
        nix::poll::PollFlags::empty(),
    )];
    nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).unwrap();
}

/// The variables of an attachment's call.
pub fn attachment(command: &str) -> Vec<(&str, &str)> {
    vec![
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "0123abc"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web"),
    ]
}

/// What a call printed and how long it took.
pub struct Called {
    pub output: Output,
    pub took: Duration,
}

impl Called {
    pub fn stdout(&self) -> &str {
        std::str::from_utf8(&self.output.stdout).unwrap()
    }

    /// The result of a call that must have succeeded.
    pub fn ok(&self) -> Value {
        assert!(self.output.status.success(), "{}", self.stdout());
        if self.stdout().is_empty() {
            return Value::Null;
        }
        serde_json::from_str(self.stdout()).unwrap()
    }

    /// The error of a call that must have failed, after its shape was checked: exit code 1, nothing on standard error,
    /// a version, and a sentence each for the cause and the remedy.
    pub fn error(&self, code: u32, cause: &str, remedy: &str) -> Value {
        let text = self.stdout();
        assert_eq!(self.output.status.code(), Some(1), "{text}");
        assert!(self.output.stderr.is_empty(), "{:?}", self.output);
        let error: Value = serde_json::from_str(text).unwrap();
        assert_eq!(error["code"], code, "{text}");
        assert!(error["msg"].as_str().unwrap().contains(cause), "{text}");
        assert!(
            error["details"].as_str().unwrap().contains(remedy),
            "{text}"
        );
        assert!(error["cniVersion"].is_string(), "{text}");
        error
    }
}

/// Runs the program as a container runtime does.
pub fn call(env: &[(&str, &str)], config: impl AsRef<[u8]>) -> Called {
    let start = Instant::now();
    let mut child = Command::new(PROGRAM)
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that needs no standard input has ended before it is written.
    let _ = child.stdin.take().unwrap().write_all(config.as_ref());
    let output = child.wait_with_output().unwrap();
    Called {
        output,
        took: start.elapsed(),
    }
}
