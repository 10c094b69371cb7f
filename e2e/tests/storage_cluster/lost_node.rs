//! A node that nobody hears of: what was on it goes on elsewhere, and it can do no harm any more.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use e2e::until;
use e2e::volumes::{Mode, User, Written};

use crate::copies::LOG;
use crate::crowds::stateful_set;
use crate::world::{LONG, PARTS, World};

const TAINT: &str = "node.kubernetes.io/out-of-service";

/// kubelet of n2 is gone and the node is declared out of service while its pod still runs and writes: the volume is cut off
/// there, and on n1 it has all that was acknowledged.
pub(crate) fn out_of_service(world: &World<'_>) -> Result<String> {
    stateful_set(
        world,
        1,
        Some("n2"),
        &User::new("db", "data", Mode::Filesystem).writing(LOG),
    )?;
    world.advance("db-0", 20)?;
    let before = world.pods("app=db")?;
    ensure!(
        before.iter().all(|(_, node)| node == "n2"),
        "db-0 is not on n2: {before:?}"
    );
    let uid = world.get(&["pod", "db-0"], "{.metadata.uid}")?;
    let writer = root_of_writer(world)?;
    let disk = Disk::of(world)?;

    let node = world.lab.node("n2");
    node.process("kubelet").kill9()?;
    let moved = moved(world, &uid, &writer);
    // Also when the case has failed: others need the node.
    node.process("kubelet").restart()?;
    world
        .lab
        .kubectl(&["taint", "node", "n2", &format!("{TAINT}-")])?;
    world
        .lab
        .kubectl(&["wait", "node/n2", "--for=condition=Ready", "--timeout=120s"])?;
    world.rolled_out(&PARTS)?;
    let moved = moved?;
    until("the dead disk to be taken away", LONG, || {
        ensure!(!disk.is_there(), "{disk:?} is there");
        Ok(Some(()))
    })?;
    Ok(moved)
}

/// A loop device. One whose export has ended can't be found by its file any more.
#[derive(Debug)]
struct Disk {
    dir: PathBuf,
    /// Another one each time that the device is made.
    sequence: String,
}

impl Disk {
    /// The one of the writer's volume on n2.
    fn of(world: &World<'_>) -> Result<Self> {
        let volume = world.bound("data-db-0")?;
        let file = format!("{}-n2/{}", world.lab.site.id(), volume.uuid());
        let devices = fs::read_dir("/sys/block")?.flatten();
        let mut dirs = devices.map(|device| device.path());
        let ours = |dir: &PathBuf| {
            let behind = fs::read_to_string(dir.join("loop/backing_file")).unwrap_or_default();
            behind.trim_end().ends_with(&file)
        };
        let dir = dirs
            .find(ours)
            .with_context(|| format!("no loop device is over {file}"))?;
        let sequence = fs::read_to_string(dir.join("diskseq"))?;
        Ok(Self { dir, sequence })
    }

    fn is_there(&self) -> bool {
        let same =
            fs::read_to_string(self.dir.join("diskseq")).is_ok_and(|now| now == self.sequence);
        same && self.dir.join("loop/backing_file").exists()
    }
}

fn moved(world: &World<'_>, uid: &str, writer: &str) -> Result<String> {
    world.lab.kubectl(&[
        "wait",
        "node/n2",
        "--for=condition=Ready=Unknown",
        "--timeout=120s",
    ])?;
    world
        .lab
        .kubectl(&["taint", "node", "n2", &format!("{TAINT}=lost:NoExecute")])?;
    until("another db-0", LONG, || {
        let now = world.get(&["pod", "db-0"], "{.metadata.uid}")?;
        Ok((!now.is_empty() && now != uid).then_some(()))
    })?;
    world.ready("db-0")?;
    let after = world.pods("app=db")?;
    ensure!(
        after.iter().all(|(_, node)| node == "n1"),
        "db-0 is not on n1: {after:?}"
    );
    // The old one runs on: it knows what was acknowledged to it, and that it can't write any more.
    let errors = until("the old writer to be refused", LONG, || {
        let errors = fs::read_to_string(format!("{writer}/tmp/errors"))?;
        Ok((!errors.is_empty()).then_some(errors))
    })?;
    let acked = || -> Result<u64> {
        let text = fs::read_to_string(format!("{writer}/tmp/acked"))?;
        text.trim()
            .parse()
            .with_context(|| format!("the old writer says {text:?}"))
    };
    let last = acked()?;
    let blocks = world.verify(
        "db-0",
        LOG,
        Written {
            last,
            longest: LONG,
        },
    )?;
    ensure!(acked()? == last, "the old writer goes on writing");
    let first = errors.lines().next().unwrap_or_default();
    Ok(format!(
        "{blocks} blocks read on n1; the old writer on n2: {first}"
    ))
}

/// The root directory of the writer's container, as this machine reaches it.
fn root_of_writer(world: &World<'_>) -> Result<String> {
    let id = world.get(
        &["pod", "db-0"],
        "{.status.containerStatuses[0].containerID}",
    )?;
    let id = id.trim_start_matches("containerd://");
    let tasks = world
        .lab
        .node("n2")
        .exec(&["ctr", "-n", "k8s.io", "tasks", "list"])?;
    let line = tasks.lines().find(|line| line.starts_with(id));
    let pid = line.and_then(|line| line.split_whitespace().nth(1));
    let pid = pid.with_context(|| format!("db-0 does not run: {tasks}"))?;
    Ok(format!("/proc/{pid}/root"))
}
