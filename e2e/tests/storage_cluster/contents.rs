//! What was written to a volume is there wherever it is used next, and by whom it may be used at a time.

use anyhow::{Result, ensure};
use e2e::volumes::{Claim, Mode, User};
use serde_json::json;

use crate::world::{LONG, World, file};

/// Size of the data that moves, MiB.
const DATA: u32 = 16;

pub(crate) fn ext4_moves(world: &World<'_>) -> Result<String> {
    moves(world, "ext4", "64Mi")
}

pub(crate) fn xfs_moves(world: &World<'_>) -> Result<String> {
    moves(world, "xfs", "320Mi")
}

/// n1 → n2 → n1 with data from both.
fn moves(world: &World<'_>, kind: &str, size: &str) -> Result<String> {
    let class = world.class(kind, &json!({"csi.storage.k8s.io/fstype": kind}))?;
    let claim = Claim {
        class: &class,
        ..Claim::new("data", size, Mode::Filesystem)
    };
    world.use_new(
        &claim,
        &User::new("first", "data", Mode::Filesystem).on("n1"),
    )?;
    let mounted = world.sh("first", "grep ' /data ' /proc/mounts")?;
    ensure!(
        mounted.contains(&format!(" /data {kind} rw")),
        "{kind} was asked for: {mounted}"
    );
    let one = world.fill("first", "/data/one", DATA)?;

    world.replace(
        "first",
        &User::new("second", "data", Mode::Filesystem).on("n2"),
    )?;
    world.holds("second", "/data/one", DATA, &one)?;
    let two = world.fill("second", "/data/two", DATA)?;

    world.replace(
        "second",
        &User::new("third", "data", Mode::Filesystem).on("n1"),
    )?;
    world.holds("third", "/data/one", DATA, &one)?;
    world.holds("third", "/data/two", DATA, &two)?;
    Ok(format!(
        "{DATA} MiB of n1 and {DATA} MiB of n2 read on the other one"
    ))
}

pub(crate) fn block_moves(world: &World<'_>) -> Result<String> {
    let disk = file(Mode::Block);
    let claim = Claim::new("data", "32Mi", Mode::Block);
    world.use_new(&claim, &User::new("first", "data", Mode::Block).on("n2"))?;
    let size = world.sh("first", &format!("blockdev --getsize64 {disk}"))?;
    ensure!(
        size == (32_u32 << 20).to_string(),
        "32Mi were asked for, the disk has {size} bytes"
    );
    let md5 = world.fill("first", disk, 32)?;
    world.replace("first", &User::new("second", "data", Mode::Block).on("n1"))?;
    world.holds("second", disk, 32, &md5)?;
    Ok("32 MiB, all of the disk, written on n2 and read on n1".into())
}

/// ReadWriteMany as a device: both nodes write, both see both.
pub(crate) fn shared(world: &World<'_>) -> Result<String> {
    let disk = file(Mode::Block);
    world.claim(&Claim {
        access: "ReadWriteMany",
        ..Claim::new("data", "32Mi", Mode::Block)
    })?;
    let nodes = ["n1", "n2"];
    for node in nodes {
        world.create(&User::new(node, "data", Mode::Block).on(node))?;
    }
    for node in nodes {
        world.ready(node)?;
    }
    let mut sums = Vec::new();
    for (nth, node) in nodes.iter().enumerate() {
        let script = format!(
            "dd if=/dev/urandom of=/tmp/random bs=1M count=8 2>/dev/null; md5sum </tmp/random | cut -c1-32\n\
             dd if=/tmp/random of={disk} bs=1M seek={} oflag=direct conv=notrunc,fsync 2>/dev/null",
            nth * 8
        );
        sums.push(world.sh(node, &script)?);
    }
    for reader in nodes {
        for (nth, md5) in sums.iter().enumerate() {
            let read = format!(
                "dd if={disk} bs=1M skip={} count=8 iflag=direct 2>/dev/null | md5sum | cut -c1-32",
                nth * 8
            );
            let found = world.sh(reader, &read)?;
            ensure!(
                found == *md5,
                "{reader} reads {found} of what {} wrote as {md5}",
                nodes[nth]
            );
        }
    }
    Ok("8 MiB of each node read by both, at once".into())
}

/// ReadWriteOncePod: a second pod waits for the end of the first one, and is told why.
pub(crate) fn one_pod(world: &World<'_>) -> Result<String> {
    let claim = Claim {
        access: "ReadWriteOncePod",
        ..Claim::new("data", "32Mi", Mode::Filesystem)
    };
    world.use_new(
        &claim,
        &User::new("first", "data", Mode::Filesystem).on("n1"),
    )?;
    let md5 = world.fill("first", "/data/file", 1)?;
    world.create(&User::new("second", "data", Mode::Filesystem).on("n1"))?;
    world.wait("pod/second", "condition=PodScheduled=false", LONG)?;
    let why = world.get(
        &["pod", "second"],
        "{.status.conditions[?(@.type==\"PodScheduled\")].message}",
    )?;
    ensure!(
        why.contains("ReadWriteOncePod"),
        "the second pod waits for another reason: {why}"
    );
    let phase = world.get(&["pod", "second"], "{.status.phase}")?;
    ensure!(phase == "Pending", "the second pod is {phase}");
    world.delete(&["pod/first"])?;
    world.ready("second")?;
    world.holds("second", "/data/file", 1, &md5)?;
    Ok(format!("the second one waited: {why}"))
}
