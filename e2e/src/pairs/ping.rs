//! A ping that runs while something is broken, and how long nobody answered it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::standing::Standing;
use crate::cgroup::Cgroup;
use crate::lab::Lab;
use crate::wait;

/// Seconds between two requests: a gap is known to within this.
const INTERVAL: &str = "0.1";
/// Less than this without an answer is a busy machine.
const LOST: Duration = Duration::from_secs(1);
/// Nobody needs one for longer; one that was forgotten ends.
const LIFE: &str = "900";

/// A running ping from within a pod's network namespace. Ends with the value.
pub struct Ping {
    child: Child,
    log: PathBuf,
    what: String,
}

/// What a ping saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gap {
    /// The longest time between two answers.
    pub longest: Duration,
    /// When the first answer after it came.
    pub ended: SystemTime,
    /// Answers altogether.
    pub answers: usize,
}

impl Ping {
    /// Pings `address` from a pod, ten times a second; returns after the first answer.
    ///
    /// # Errors
    /// No answer comes.
    pub fn start(lab: &Lab, from: &Standing, address: &str) -> Result<Self> {
        let node = lab.node(&from.pod.node);
        let netns = format!("--net={}", from.sandbox.netns);
        let number = std::process::id();
        let log = lab.site.dir().join(format!(
            "ping-{number}-{}-{}.log",
            from.pod.name,
            address.replace([':', '.'], "-")
        ));
        // Not in the node's cgroup: a reboot of the node would end it, and what is looked at is whether others notice.
        let door = Cgroup::existing(lab.site.id(), "site").processes_file()?;
        let file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let line = "echo $$ >\"$1\" && shift && exec \"$@\"";
        let child = node
            .command("sh")
            .args(["-c", line, "sh", &door.display().to_string()])
            .args(["nsenter", &netns, "timeout", LIFE])
            .args(["ping", "-n", "-D", "-i", INTERVAL, address])
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("ping cannot be started")?;
        let what = format!("{address} pinged from {}", from.pod.full_name());
        let ping = Self { child, log, what };
        wait::until_true(
            &format!("an answer of {}", ping.what),
            Duration::from_secs(20),
            || Ok(ping.answers()?.len() > 2),
        )?;
        Ok(ping)
    }

    /// Waits for an answer that comes later than `since`.
    ///
    /// # Errors
    /// None does in time.
    pub fn answered_after(&self, since: SystemTime, limit: Duration) -> Result<()> {
        let since = seconds(since);
        wait::until_true(&format!("an answer of {}", self.what), limit, || {
            let answers = self.answers()?;
            let last = answers.last().copied().unwrap_or_default();
            ensure!(
                last > since,
                "the last one was {:.1} s before",
                since - last
            );
            Ok(true)
        })
    }

    /// Ends it.
    ///
    /// # Errors
    /// It had no two answers.
    pub fn stop(mut self) -> Result<Gap> {
        self.end();
        let answers = self.answers()?;
        let pairs = answers.windows(2).map(|pair| (pair[1] - pair[0], pair[1]));
        let (longest, ended) = pairs
            .max_by(|one, other| one.0.total_cmp(&other.0))
            .with_context(|| format!("{}: fewer than two answers", self.what))?;
        Ok(Gap {
            longest: Duration::from_secs_f64(longest),
            ended: SystemTime::UNIX_EPOCH + Duration::from_secs_f64(ended),
            answers: answers.len(),
        })
    }

    /// Times of all answers so far.
    fn answers(&self) -> Result<Vec<f64>> {
        let text = fs::read_to_string(&self.log)
            .with_context(|| format!("cannot read {}", self.log.display()))?;
        Ok(times(&text))
    }

    fn end(&mut self) {
        // `timeout` hands the signal on; SIGKILL it could not.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Ping {
    fn drop(&mut self) {
        self.end();
    }
}

impl Gap {
    /// How long after a moment the answers came back; nothing when they were there already.
    pub fn after(&self, moment: SystemTime) -> Duration {
        if self.longest < LOST {
            return Duration::ZERO;
        }
        self.ended.duration_since(moment).unwrap_or_default()
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// `[1700000000.123456] 64 bytes from …`: an answer and its time.
fn times(text: &str) -> Vec<f64> {
    let time = |line: &str| {
        let (time, rest) = line.strip_prefix('[')?.split_once("] ")?;
        rest.contains(" bytes from ").then(|| time.parse().ok())?
    };
    text.lines().filter_map(time).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_complaints() {
        let text = "PING 10.244.0.5 (10.244.0.5) 56(84) bytes of data.\n\
                    [1700000000.100000] 64 bytes from 10.244.0.5: icmp_seq=1 ttl=64 time=0.5 ms\n\
                    [1700000000.200000] From 10.244.0.1 icmp_seq=2 Destination Host Unreachable\n\
                    ping: sendmsg: Network is unreachable\n\
                    [1700000003.500000] 64 bytes from 10.244.0.5: icmp_seq=35 ttl=64 time=0.5 ms\n\
                    [1700000003.6";
        assert_eq!(times(text), [1_700_000_000.1, 1_700_000_003.5]);
    }
}
