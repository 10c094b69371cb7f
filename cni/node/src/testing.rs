//! What tests need of the machine: network namespaces and programs, all gone when the test is over.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::netns::Netns;

/// A network namespace of the test's own, loopback up.
pub(crate) struct TestNetns {
    name: String,
}

impl TestNetns {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "obt-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        run(&["ip", "netns", "add", &name]);
        let netns = Self { name };
        netns.run(&["ip", "link", "set", "lo", "up"]);
        netns
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    pub(crate) fn open(&self) -> Netns {
        Netns::of_pod(&self.path()).unwrap()
    }

    /// Runs a program inside; returns what it prints, panics when it fails.
    pub(crate) fn run(&self, command: &[&str]) -> String {
        let prefix = ["ip", "netns", "exec", &self.name];
        run(&[&prefix, command].concat())
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        // Best effort: a test that fails must fail with its own message.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}

/// Runs a program; returns what it prints, panics when it fails.
pub(crate) fn run(command: &[&str]) -> String {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .unwrap_or_else(|why| panic!("{}: {why}: run `make setup`", command[0]));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}{errors}");
    text
}

/// An ovsdb-server in a directory of the test's.
pub(crate) struct OvsdbServer {
    child: Child,
    socket: PathBuf,
}

impl OvsdbServer {
    /// Starts one with an empty database.
    pub(crate) fn start(directory: &std::path::Path, schema: &str) -> Self {
        let name = std::path::Path::new(schema)
            .file_stem()
            .unwrap()
            .to_str()
            .unwrap();
        let path = |suffix: &str| directory.join(format!("{name}.{suffix}"));
        let (database, socket) = (path("db"), path("sock"));
        run(&["ovsdb-tool", "create", database.to_str().unwrap(), schema]);
        let child = Command::new("ovsdb-server")
            .arg(format!("--remote=punix:{}", socket.display()))
            .arg(format!("--unixctl={}", path("ctl").display()))
            .arg(format!("--log-file={}", path("log").display()))
            .arg("-vconsole:off")
            .arg(&database)
            .spawn()
            .unwrap_or_else(|why| panic!("ovsdb-server: {why}: run `make setup`"));
        Self { child, socket }
    }

    pub(crate) fn remote(&self) -> ovsdb::Remote {
        ovsdb::Remote::Unix(self.socket.clone())
    }

    pub(crate) fn socket(&self) -> &std::path::Path {
        &self.socket
    }
}

impl Drop for OvsdbServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
