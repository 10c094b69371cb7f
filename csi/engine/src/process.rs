//! A daemon's process: found by its lock, held by a pidfd, so that no other process can be taken for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::lock;
use crate::place::Place;

/// How often a process that ends while it is looked at is looked at again: each time another one must have ended.
const ATTEMPTS: usize = 100;

/// A living daemon, or one that is about to be (the launcher).
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) epoch: String,
    pidfd: AsyncFd<OwnedFd>,
}

/// Why a daemon can't be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    /// The lock is held by a process that is no daemon of this directory: it is left alone.
    #[error(
        "{lock} is locked by process {pid} ({command}), which is no storage daemon of this engine: end it, then it is tried again"
    )]
    Foreign {
        lock: String,
        pid: i32,
        command: String,
    },
    /// The operating system refused.
    #[error("can't look for the daemon of {lock}: {source}")]
    Io { lock: String, source: io::Error },
}

impl Process {
    /// The process that holds the lock of `place`. `boot` is the kernel's boot id.
    pub(crate) fn find(place: &Place, boot: &str) -> Result<Option<Self>, FindError> {
        let path = place.lock().display().to_string();
        let failed = |source: io::Error| FindError::Io {
            lock: path.clone(),
            source,
        };
        let mut doubted = None;
        for _ in 0..ATTEMPTS {
            let Some(number) = lock::holder(place).map_err(failed)? else {
                return Ok(None);
            };
            let foreign = |command: String| FindError::Foreign {
                lock: path.clone(),
                pid: number,
                command,
            };
            // 0 is a process of another PID namespace.
            let Some(pid) = Pid::from_raw(number) else {
                return Err(foreign(
                    "of another PID namespace: run the engine with hostPID".into(),
                ));
            };
            let pidfd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
                Err(rustix::io::Errno::SRCH) => continue,
                opened => opened.map_err(|why| failed(why.into()))?,
            };
            let Some((command, start_time)) = about(number) else {
                continue;
            };
            // The same holder before and after: what was read and what the pidfd holds is that process.
            if lock::holder(place).map_err(failed)? != Some(number) {
                continue;
            }
            // In the midst of its exec it has no command line: only a launcher of ours does that under this lock. Or half of
            // one: what is seen twice is whole.
            if !command.is_empty() && !command.contains(&*place.dir().to_string_lossy()) {
                if doubted.as_ref() == Some(&command) {
                    return Err(foreign(command));
                }
                doubted = Some(command);
                continue;
            }
            #[expect(
                deprecated,
                reason = "its successor is unsafe for types that could close their descriptor; an OwnedFd does not"
            )]
            let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE).map_err(failed)?;
            return Ok(Some(Process {
                pid: number.unsigned_abs(),
                epoch: format!("{boot}/{number}/{start_time}"),
                pidfd,
            }));
        }
        Err(failed(io::Error::other(
            "its processes end too fast to be looked at",
        )))
    }

    /// Waits for the end of the process, and says how it ended where that can be known. Cancel safe.
    pub(crate) async fn ended(&self) -> String {
        // The only error is a runtime that ends.
        let _ = self.pidfd.readable().await;
        let status = waitid(
            WaitId::PidFd(self.pidfd.get_ref().as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
        match status {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("ended with code {code}"),
                (_, Some(signal)) => format!("was ended by signal {signal}"),
                _ => "ended".to_owned(),
            },
            // Not a child of this engine but of an earlier one.
            _ => "ended".to_owned(),
        }
    }

    /// Ends it at once. It may have ended already.
    pub(crate) fn kill(&self) {
        if let Err(why) = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL)
            && why != rustix::io::Errno::SRCH
        {
            tracing::error!(pid = self.pid, "can't kill the storage daemon: {why}");
        }
    }
}

/// Command line and start time (clock ticks since the boot) of a process.
fn about(pid: i32) -> Option<(String, u64)> {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc(5): the command in parentheses is the 2nd field and may hold anything; the start time is the 22nd.
    let (_, fields) = stat.rsplit_once(')')?;
    let start_time = fields.split_whitespace().nth(22 - 3)?.parse().ok()?;
    let words = command.split(|byte| *byte == 0);
    let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
    Some((words.join(" ").trim().to_owned(), start_time))
}
