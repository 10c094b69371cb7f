//! ovsdb-server processes in a directory of their own, ended by their own pid.

use ovsdb::{Client, Config, Remote};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

pub(crate) const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/schema.ovsschema");

/// Long enough for a busy machine, short enough to end a run that hangs.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// A server of the test database; it is killed when dropped.
pub(crate) struct Server {
    directory: TempDir,
    child: Option<Child>,
    arguments: Vec<String>,
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    let status = status.unwrap_or_else(|e| panic!("{program}: {e}: run `make setup`"));
    assert!(status.success(), "{program} {arguments:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

impl Server {
    fn new(create: impl FnOnce(&str), arguments: &[String]) -> Server {
        let directory = tempfile::tempdir().unwrap();
        create(text(&directory.path().join("db")));
        let mut server = Server {
            directory,
            child: None,
            arguments: arguments.to_vec(),
        };
        server.start();
        server
    }

    /// A server of its own, on a unix socket.
    pub(crate) fn standalone() -> Server {
        Server::with(&[])
    }

    /// A server of its own, with more arguments.
    pub(crate) fn with(arguments: &[String]) -> Server {
        Server::new(|db| run("ovsdb-tool", &["create", db, SCHEMA]), arguments)
    }

    /// A cluster of so many servers; the first is its first leader.
    pub(crate) fn cluster(size: usize) -> Vec<Server> {
        let address = || format!("tcp:127.0.0.1:{}", free_port());
        let first = address();
        let leader = Server::new(
            |db| run("ovsdb-tool", &["create-cluster", db, SCHEMA, &first]),
            &[],
        );
        let join = |_| {
            let own = address();
            Server::new(
                |db| run("ovsdb-tool", &["join-cluster", db, "Test", &own, &first]),
                &[],
            )
        };
        std::iter::once(leader).chain((1..size).map(join)).collect()
    }

    pub(crate) fn start(&mut self) {
        let path = self.directory.path();
        let socket = path.join("sock");
        let _ = std::fs::remove_file(&socket);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path.join("log"));
        let child = Command::new("ovsdb-server")
            .arg(format!("--remote=punix:{}", socket.display()))
            .arg(format!("--unixctl={}", path.join("ctl").display()))
            .args(&self.arguments)
            .arg("-vconsole:info")
            .arg(path.join("db"))
            .env("OVS_RUNDIR", path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn();
        self.child = Some(child.unwrap_or_else(|e| panic!("ovsdb-server: {e}: run `make setup`")));
    }

    /// As kill -9 does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("sock")
    }

    pub(crate) fn remote(&self) -> Remote {
        Remote::Unix(self.socket())
    }

    pub(crate) fn client(&self) -> Client {
        client(vec![self.remote()])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("log"));
            eprintln!("ovsdb-server's log:\n{}", log.unwrap_or_default());
        }
    }
}

pub(crate) fn config(remotes: Vec<Remote>) -> Config {
    Config {
        max_backoff: Duration::from_millis(200),
        ..Config::new("Test", remotes)
    }
}

pub(crate) fn client(remotes: Vec<Remote>) -> Client {
    Client::start(config(remotes))
}
