//! What can be asked of a chain: where things are, what runs, what is left.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::super::calls::Calls;
use super::super::daemons::{self, Daemon};
use super::super::leaks;
use super::super::program::Program;
use super::{Chain, of};
use crate::wait;

/// What goes in the background goes within it.
const SETTLE: Duration = Duration::from_secs(20);

impl Chain {
    /// The chain's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.home.path()
    }

    /// Where csi-controller serves CSI.
    #[must_use]
    pub fn controller_socket(&self) -> PathBuf {
        self.place.csi_socket()
    }

    /// Where the host's csi-node-host serves CSI.
    #[must_use]
    pub fn node_socket(&self, host: usize) -> PathBuf {
        self.hosts[host].place.csi_socket()
    }

    /// Where the host's outboard-engine serves.
    #[must_use]
    pub fn engine_socket(&self, host: usize) -> PathBuf {
        self.hosts[host].place.engine_socket()
    }

    /// The host's directory of kubelet's, within its namespace: there paths for staging and publishing belong.
    #[must_use]
    pub fn kubelet(&self, host: usize) -> PathBuf {
        self.hosts[host].place.kubelet()
    }

    /// How this process reaches what the host has at an absolute path, its mounts included.
    #[must_use]
    pub fn seen(&self, host: usize, path: &Path) -> PathBuf {
        self.hosts[host].namespace.seen(path)
    }

    /// A program that will run among the host's mounts.
    #[must_use]
    pub fn command(&self, host: usize, program: &str) -> Command {
        self.hosts[host].namespace.command(program)
    }

    /// The volumes' qemu-storage-daemons on that host, as its engine has them.
    ///
    /// # Errors
    /// The engine does not answer.
    pub fn daemons(&self, host: usize) -> Result<Vec<Daemon>> {
        // Who asks may be about to kill one.
        self.loops.look();
        daemons::of(&self.engine_socket(host))
    }

    /// Clients of csi-controller and of every csi-node-host, with the steps of a volume's life. Cheap to clone.
    #[must_use]
    pub fn clients(&self) -> Calls {
        self.calls.clone()
    }

    /// Blocks until `work` is done, for tests that are not async.
    pub fn run<W>(&self, work: W) -> W::Output
    where
        W: Future + Send + 'static,
        W::Output: Send + 'static,
    {
        self.runtime.run(work)
    }

    /// One sentence for each image, record, export, daemon, loop device or mount that is left of a volume; empty: nothing
    /// is. What goes in the background is waited for.
    ///
    /// # Errors
    /// Something can't be looked at.
    pub fn leaks(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let clean = wait::until_true("a clean machine", SETTLE, || {
            left = leaks::of(&self.place, &self.hosts, &self.loops)?;
            Ok(left.is_empty())
        });
        match clean {
            Err(why) if left.is_empty() => Err(why),
            _ => Ok(left),
        }
    }

    /// What all programs have said, the volumes' daemons included.
    ///
    /// # Errors
    /// A log can't be read.
    pub fn logs(&self) -> Result<String> {
        let mut files = leaks::files(&self.place.logs());
        for host in &self.hosts {
            let daemons = leaks::files(&host.place.engine_state().join("daemons"));
            files.extend(daemons.into_iter().map(|dir| dir.join("log")));
        }
        let mut all = String::new();
        for file in files {
            // A daemon that has just gone took its log along.
            let text = std::fs::read(&file).unwrap_or_default();
            all.push_str(&format!(
                "--- {}\n{}\n",
                file.display(),
                String::from_utf8_lossy(&text)
            ));
        }
        Ok(all)
    }

    /// The last lines of a program's log.
    #[must_use]
    pub fn tail(&self, host: usize, program: Program) -> String {
        self.hosts[of(host, program)].tail(&self.place, program)
    }
}
