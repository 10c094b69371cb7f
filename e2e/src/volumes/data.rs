//! Data on volumes: written, moved and read again.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{STEP, Volumes};
use crate::wait;

pub(super) const WRITER: &str = include_str!("writer.sh");
const VERIFY: &str = include_str!("verify.sh");

/// Where a writer writes.
#[derive(Debug, Clone, Copy)]
pub struct Log<'a> {
    /// `/data/log`, `/dev/disk`.
    pub path: &'a str,
    /// After so many blocks it begins anew at the front; 0: never.
    pub ring: u64,
}

/// What a writer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The last block that was on the disk.
    pub last: u64,
    /// The longest time that one block took.
    pub longest: Duration,
}

impl Volumes<'_> {
    /// Runs a script (`sh -ec`) in a pod; what it printed.
    ///
    /// # Errors
    /// It failed: with what it said.
    pub fn sh(&self, pod: &str, script: &str) -> Result<String> {
        self.lab.pod_exec(&self.ns, pod, &["sh", "-ec", script])
    }

    /// Fills a file or the front of a device with random data, by fsync on the disk; their MD5 sum, made before they were
    /// written.
    ///
    /// # Errors
    /// They can't be written.
    pub fn fill(&self, pod: &str, path: &str, mebibytes: u32) -> Result<String> {
        self.sh(
            pod,
            &format!(
                "dd if=/dev/urandom of=/tmp/random bs=1M count={mebibytes} 2>/dev/null\nmd5sum </tmp/random | cut -c1-32\n\
                 dd if=/tmp/random of={path} bs=1M conv=notrunc,fsync 2>/tmp/said || {{ cat /tmp/said >&2; exit 1; }}\nrm /tmp/random"
            ),
        )
    }

    /// Checks that a file or the front of a device is what [`Self::fill`] wrote, as the disk has it.
    ///
    /// # Errors
    /// It is not.
    pub fn holds(&self, pod: &str, path: &str, mebibytes: u32, md5: &str) -> Result<()> {
        let read = format!(
            "dd if={path} bs=1M count={mebibytes} iflag=direct 2>/dev/null | md5sum | cut -c1-32"
        );
        let found = self.sh(pod, &read)?;
        ensure!(
            found == md5,
            "{path} in pod {pod}: MD5 of {mebibytes} MiB is {found}; {md5} was written"
        );
        Ok(())
    }

    /// Waits until a writer has so many blocks more on the disk than now.
    ///
    /// # Errors
    /// It has not in time, or it met an error.
    pub fn advance(&self, pod: &str, blocks: u64) -> Result<()> {
        let acked = || -> Result<u64> {
            let text = self.sh(
                pod,
                "cat /tmp/errors >&2; test ! -s /tmp/errors; cat /tmp/acked 2>/dev/null || echo 0",
            )?;
            text.parse()
                .with_context(|| format!("the writer says {text:?}"))
        };
        // The writer makes its files a moment after its start.
        let from = wait::until("the writer's beginning", STEP, || acked().map(Some))?;
        let what = format!("pod {pod} to write {blocks} blocks");
        let done = wait::until(
            &what,
            STEP,
            || Ok((acked()? >= from + blocks).then_some(())),
        );
        self.explained(&format!("pod/{pod}"), done)
    }

    /// Lets a writer end.
    ///
    /// # Errors
    /// It met an error, or does not end.
    pub fn stop_writer(&self, pod: &str) -> Result<Written> {
        let script = "touch /tmp/stop; timeout 60 sh -c 'until [ -e /tmp/done ]; do sleep 0.1; done'\n\
                      cat /tmp/errors >&2; test ! -s /tmp/errors; cat /tmp/acked /tmp/longest";
        let text = self
            .sh(pod, script)
            .with_context(|| format!("the writer in pod {pod}"))?;
        let numbers: Vec<u64> = text
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [last, longest] = numbers[..] else {
            return Err(anyhow!("the writer in pod {pod} says {text:?}"));
        };
        Ok(Written {
            last,
            longest: Duration::from_millis(longest * 10),
        })
    }

    /// Reads all that a writer had on the disk, in this pod or another one; how many blocks.
    ///
    /// # Errors
    /// One is missing, or is not what was written.
    pub fn verify(&self, pod: &str, log: Log<'_>, written: Written) -> Result<u64> {
        let (ring, last) = (log.ring.to_string(), written.last.to_string());
        let argv = ["sh", "-c", VERIFY, "verify", log.path, &ring, &last];
        let text = self.lab.pod_exec(&self.ns, pod, &argv)?;
        text.parse()
            .with_context(|| format!("the verifier says {text:?}"))
    }
}
