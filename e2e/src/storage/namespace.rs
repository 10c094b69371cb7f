//! A host's mounts: a mount namespace of its own, which hears of nothing and is heard by nobody.
//!
//! All programs of a host run in it, the volumes' daemons with them: what one mounts the others see. Other tests on the
//! machine do not: a copy of these mounts elsewhere would hold a disk that is to be let go.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::wait;

/// Lives as long as this and the programs in it.
#[derive(Debug)]
pub(super) struct Namespace {
    keeper: Child,
}

/// A line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) point: PathBuf,
    pub(super) kind: String,
}

impl Namespace {
    /// With `kubelet` as the directory of kubelet's: what is mounted below it is shared with containers.
    pub(super) fn new(kubelet: &Path) -> Result<Self> {
        let keeper = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start `unshare` (make setup installs what the tests need)")?;
        let namespace = Self { keeper };
        let pid = namespace.pid();
        let own = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        wait::until_true("a mount namespace", Duration::from_secs(10), || {
            let name = fs::read_to_string(format!("/proc/{pid}/comm"))?;
            Ok(name.trim() == "cat" && own(&pid) != own("self"))
        })?;
        let script = "mount --bind \"$1\" \"$1\" && mount --make-rshared \"$1\"";
        let mut mount = namespace.command("sh");
        mount.args(["-ec", script, "sh"]).arg(kubelet);
        crate::shell::finish(&mut mount, None)?;
        Ok(namespace)
    }

    fn pid(&self) -> String {
        self.keeper.id().to_string()
    }

    /// A program that will run in it, under the pid that the command gets.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid(), "--mount", "--"]);
        command.arg(program);
        command
    }

    /// How it sees an absolute path.
    pub(super) fn seen(&self, path: &Path) -> PathBuf {
        let path = path.strip_prefix("/").unwrap_or(path);
        Path::new("/proc").join(self.pid()).join("root").join(path)
    }

    /// What is mounted below `dir`.
    pub(super) fn mounts(&self, dir: &Path) -> Result<Vec<Mount>> {
        let table = format!("/proc/{}/mountinfo", self.pid());
        let text = fs::read_to_string(&table).with_context(|| format!("cannot read {table}"))?;
        // proc_pid_mountinfo(5): the mount point is field 5; after `-` comes the kind.
        let parsed = text.lines().filter_map(|line| {
            let (head, tail) = line.split_once(" - ")?;
            Some(Mount {
                point: head.split(' ').nth(4)?.into(),
                kind: tail.split(' ').next()?.to_owned(),
            })
        });
        Ok(parsed
            .filter(|mount| mount.point.starts_with(dir))
            .collect())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
