//! A long-running program of the lab: started with a log file, recorded with its pid and start time, ended by exactly that.
//!
//! The record is a file, so another invocation of `outboard-lab` can stop and restart what this one started.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::{shell, wait};

/// How to start a program again exactly as before.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Recipe {
    argv: Vec<String>,
    cgroup_procs: PathBuf,
    log: PathBuf,
}

/// One start of a program. A pid alone is no identity: the kernel hands it out again.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    recipe: Recipe,
    pid: i32,
    start_time: u64,
}

/// A program of the lab, by its record in the state directory.
#[derive(Debug, Clone)]
pub struct Process {
    record: PathBuf,
}

impl Process {
    /// Starts `argv` in `cgroup`; log and record go to `<dir>/<name>.log` and `.json`.
    pub(crate) fn start(
        dir: &Path,
        name: &str,
        argv: Vec<String>,
        cgroup: &Cgroup,
    ) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let process = Self::at(dir, name);
        process.launch(Recipe {
            argv,
            cgroup_procs: cgroup.processes_file()?,
            log,
        })?;
        Ok(process)
    }

    /// The process that `start` recorded under this name.
    pub(crate) fn at(dir: &Path, name: &str) -> Self {
        Self {
            record: dir.join(format!("{name}.json")),
        }
    }

    /// The pid of the last start.
    ///
    /// # Errors
    /// There was no start.
    pub fn pid(&self) -> Result<i32> {
        Ok(self.read()?.pid)
    }

    /// Where the program's output goes.
    ///
    /// # Errors
    /// There was no start.
    pub fn log(&self) -> Result<PathBuf> {
        Ok(self.read()?.recipe.log)
    }

    /// Whether the recorded start still runs.
    pub fn alive(&self) -> bool {
        self.read().is_ok_and(|r| {
            // Ours would stay a zombie, which looks alive from a distance.
            let _ = waitpid(Pid::from_raw(r.pid), Some(WaitPidFlag::WNOHANG));
            start_time(r.pid) == Some(r.start_time)
        })
    }

    /// SIGKILL, and waits until it is gone. No error when it was gone before.
    ///
    /// # Errors
    /// There was no start, or the kernel keeps it for 10 s.
    pub fn kill9(&self) -> Result<()> {
        self.end(Signal::SIGKILL)
    }

    /// SIGTERM, and waits until it is gone.
    ///
    /// # Errors
    /// As [`Self::kill9`].
    pub fn terminate(&self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }

    /// Stops it (with SIGKILL: the hard case is the one to test) and starts it as before.
    ///
    /// # Errors
    /// As [`Self::kill9`], or the program cannot be started.
    pub fn restart(&self) -> Result<()> {
        self.kill9()?;
        self.launch(self.read()?.recipe)
    }

    fn end(&self, signal: Signal) -> Result<()> {
        let record = self.read()?;
        if self.alive() {
            let _ = kill(Pid::from_raw(record.pid), signal);
        }
        let what = format!(
            "the end of {} (pid {})",
            record.recipe.argv.join(" "),
            record.pid
        );
        wait::until_true(&what, Duration::from_secs(10), || Ok(!self.alive()))
    }

    fn launch(&self, recipe: Recipe) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&recipe.log)
            .with_context(|| format!("cannot open {}", recipe.log.display()))?;
        // exec keeps the pid, through the cgroup's door and through nsenter.
        let door = "echo $$ >\"$1\" && shift && exec \"$@\"";
        let prefix = ["setsid", "sh", "-c", door, "sh"].map(str::to_string);
        let words: Vec<String> = prefix
            .into_iter()
            .chain([recipe.cgroup_procs.display().to_string()])
            .chain(recipe.argv.clone())
            .collect();
        let child = shell::command(&words)?
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .current_dir("/")
            .spawn()
            .with_context(|| format!("cannot start {}", recipe.argv.join(" ")))?;
        let pid = i32::try_from(child.id()).context("a pid is positive")?;
        let start_time = start_time(pid)
            .with_context(|| format!("{} is gone at once", recipe.argv.join(" ")))?;
        let text = serde_json::to_vec_pretty(&Record {
            recipe,
            pid,
            start_time,
        })?;
        fs::write(&self.record, text)
            .with_context(|| format!("cannot write {}", self.record.display()))
    }

    fn read(&self) -> Result<Record> {
        let text = fs::read(&self.record).with_context(|| {
            format!(
                "no such process: {} (was it started?)",
                self.record.display()
            )
        })?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged", self.record.display()))
    }
}

/// The kernel's start time of a process in clock ticks since boot; none when it is gone or a zombie.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything: count from its end (proc(5): state is field 3, starttime 22).
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    // The first thread is a zombie while others still end, and with them the sockets that the process holds.
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    if state == "X" || (state == "Z" && threads() < 2) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
