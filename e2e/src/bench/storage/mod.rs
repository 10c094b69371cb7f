//! What storage costs: volumes made, attached and copied, and the path of their bytes.
//!
//! The floor of each number is what somebody would do by hand with QEMU's own programs, losetup, mkfs and mount: see
//! [`hand`]. It is measured in the same run, in turns with ours.

pub(super) mod attach;
pub(super) mod clone;
mod csi;
pub(super) mod datapath;
mod fio;
pub(super) mod guest;
mod hand;
mod images;
mod stages;
mod turns;
pub(super) mod volumes;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

use super::report::{Report, Row};
use super::samples::Samples;
use crate::storage::{Chain, ChainConfig};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// The target's node, and one that is not.
const HOSTS: [&str; 2] = ["n1", "n2"];

/// How a volume is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// With a file system, mounted.
    Ext4,
    /// As a disk.
    Block,
}

/// How long the steps took that bring a volume to a workload.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    /// A disk of the host: ControllerPublishVolume.
    publish: Duration,
    /// Mounted, after mkfs or fsck: NodeStageVolume.
    stage: Duration,
    /// Bound to where the workload sees it: NodePublishVolume.
    bind: Duration,
}

impl Times {
    fn whole(&self) -> Duration {
        self.publish + self.stage + self.bind
    }
}

/// [`Times`] of many.
#[derive(Debug, Default)]
struct Many {
    whole: Samples,
    publish: Samples,
    stage: Samples,
    bind: Samples,
}

impl Many {
    fn push(&mut self, times: &Times) {
        self.whole.push(times.whole());
        self.publish.push(times.publish);
        self.stage.push(times.stage);
        self.bind.push(times.bind);
    }
}

/// What a thread came to.
fn joined<T>(thread: std::thread::Result<Result<T>>) -> Result<T> {
    thread.unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
}

/// The chain on both hosts, with a directory of ours in its own, on the file system of its images.
fn chain(tls: bool) -> Result<(Chain, PathBuf)> {
    let config = ChainConfig {
        hosts: HOSTS.to_vec(),
        tls,
        // As in a cluster: what goes to the log costs, too.
        env: vec![("OUTBOARD_LOG".into(), "info".into())],
        ..ChainConfig::default()
    };
    let chain = Chain::start(config)?;
    let ground = chain.dir().join("bench");
    std::fs::create_dir_all(&ground)?;
    Ok((chain, ground))
}

/// The last row: nothing may be left of what was measured.
fn nothing_left(report: &mut Report, chain: &Chain) -> Result<()> {
    let leaks = chain.leaks()?;
    let count = u32::try_from(leaks.len())?;
    report.push(Row::new("left behind", f64::from(count), "").at_most(0.0, "nothing"));
    ensure!(leaks.is_empty(), "left behind: {}", leaks.join("; "));
    Ok(())
}
