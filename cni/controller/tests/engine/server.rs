//! An ovsdb-server in a directory of its own.

use ovsdb::{Client, Config, MonitorSpec, Remote, Replica};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

/// A database server; ended with the value.
pub(crate) struct Server {
    directory: TempDir,
    schema: &'static str,
    process: Option<Child>,
}

impl Server {
    /// A northbound one.
    pub(crate) fn northbound() -> Self {
        Self::start("/usr/share/ovn/ovn-nb.ovsschema")
    }

    /// A southbound one.
    pub(crate) fn southbound() -> Self {
        Self::start("/usr/share/ovn/ovn-sb.ovsschema")
    }

    fn start(schema: &'static str) -> Self {
        let mut server = Self {
            directory: tempfile::tempdir().unwrap(),
            schema,
            process: None,
        };
        server.create();
        server.restart();
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn create(&self) {
        let mut tool = Command::new("ovsdb-tool");
        let made = tool
            .arg("create")
            .arg(self.path("db"))
            .arg(self.schema)
            .status();
        let made = made.expect("ovsdb-tool is missing: run `make setup`");
        assert!(made.success());
    }

    /// Starts it (again).
    pub(crate) fn restart(&mut self) {
        self.kill();
        let child = Command::new("ovsdb-server")
            .arg(format!("--remote=punix:{}", self.path("sock").display()))
            .arg(format!("--unixctl={}", self.path("ctl").display()))
            .arg(format!("--log-file={}", self.path("log").display()))
            .args(["--no-chdir", "-vconsole:off"])
            .arg(self.path("db"))
            .spawn()
            .expect("ovsdb-server is missing: run `make setup`");
        self.process = Some(child);
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it with an empty database.
    pub(crate) fn empty(&mut self) {
        self.kill();
        std::fs::remove_file(self.path("db")).unwrap();
        self.create();
        self.restart();
    }

    /// Where it listens.
    pub(crate) fn remote(&self) -> String {
        format!("unix:{}", self.path("sock").display())
    }

    /// A connection.
    pub(crate) fn client(&self, database: &str) -> Client {
        let remote: Remote = self.remote().parse().unwrap();
        let config = Config::new(database, vec![remote]);
        Client::start(Config {
            max_backoff: Duration::from_millis(200),
            ..config
        })
    }

    /// What stands in it.
    pub(crate) async fn replica(&self, database: &str, spec: MonitorSpec) -> Replica {
        let replica = self.client(database).monitor(spec);
        replica
            .wait_synced(Instant::now() + Duration::from_secs(10))
            .await
            .unwrap();
        replica
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
