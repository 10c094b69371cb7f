//! Southbound ovsdb-servers of their own, without OVN: one with the database, and relays in front of it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{shell, wait};

const SCHEMA: &str = "/usr/share/ovn/ovn-sb.ovsschema";

/// A running ovsdb-server. Dropping it ends it.
pub(super) struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    /// With a new, empty southbound database.
    pub(super) fn database(dir: &Path) -> Result<Self> {
        let file = dir.join("sb.db").display().to_string();
        shell::run(&["ovsdb-tool", "create", &file, SCHEMA])?;
        Self::start(dir, "sb", &file)
    }

    /// A relay of another server: it answers reads and monitors itself, and passes writes on.
    pub(super) fn relay(dir: &Path, name: &str, source: &Self) -> Result<Self> {
        Self::start(
            dir,
            name,
            &format!("relay:OVN_Southbound:{}", source.remote()),
        )
    }

    fn start(dir: &Path, name: &str, database: &str) -> Result<Self> {
        let socket = dir.join(format!("{name}.sock"));
        let log = File::create(dir.join(format!("{name}.log")))?;
        // It inherits our limit of open files, which section `sessions` raises.
        let child = Command::new("ovsdb-server")
            .arg(database)
            .arg(format!("--remote=punix:{}", socket.display()))
            .arg(format!(
                "--unixctl={}",
                dir.join(format!("{name}.ctl")).display()
            ))
            .args(["-vconsole:warn", "-vsyslog:off"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start ovsdb-server (make setup installs it)")?;
        let server = Self { child, socket };
        wait::until_true(
            &format!("ovsdb-server {name}"),
            Duration::from_secs(10),
            || Ok(std::os::unix::net::UnixStream::connect(&server.socket).map(|_| true)?),
        )?;
        Ok(server)
    }

    /// As its clients name it.
    pub(super) fn remote(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    pub(super) fn pid(&self) -> Result<i32> {
        i32::try_from(self.child.id()).context("a pid is positive")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
