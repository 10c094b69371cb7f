//! Volumes that change while they are used.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::volumes::{Claim, Log, Mode, User};
use serde_json::json;

use crate::world::{World, file};

/// Blocks that the writer has to write before and after the change.
const BLOCKS: u64 = 50;
/// Operations per second.
const LIMIT: u32 = 20;

/// xfs: the kernel of this kind of machine grows ext4 only while it is not mounted.
pub(crate) fn filesystem(world: &World<'_>) -> Result<String> {
    let class = world.class("xfs", &json!({"csi.storage.k8s.io/fstype": "xfs"}))?;
    let claim = Claim {
        class: &class,
        ..Claim::new("data", "320Mi", Mode::Filesystem)
    };
    let log = Log {
        path: "/data/log",
        ring: 0,
    };
    world.use_new(
        &claim,
        &User::new("writer", "data", Mode::Filesystem)
            .on("n2")
            .writing(log),
    )?;
    let size = || -> Result<u64> {
        let text = world.sh("writer", "df -k /data | awk 'END {print $2}'")?;
        text.parse().with_context(|| format!("df says {text:?}"))
    };
    let before = size()?;
    world.advance("writer", BLOCKS)?;
    world.grow("data", "512Mi")?;
    let after = size()?;
    ensure!(
        after > before + 150 * 1024,
        "192 MiB more were asked for: {before} → {after} KiB"
    );
    world.advance("writer", BLOCKS)?;
    let written = world.stop_writer("writer")?;
    world.verify("writer", log, written)?;
    // More than the old size had room for.
    let large = "dd if=/dev/zero of=/data/large bs=1M count=360 conv=fsync 2>&1";
    world.sh("writer", large)?;
    world.replace(
        "writer",
        &User::new("reader", "data", Mode::Filesystem).on("n1"),
    )?;
    let blocks = world.verify("reader", log, written)?;
    Ok(format!(
        "{before} → {after} KiB under {blocks} blocks, the slowest {:.2?}",
        written.longest
    ))
}

pub(crate) fn block(world: &World<'_>) -> Result<String> {
    let disk = file(Mode::Block);
    let log = Log {
        path: disk,
        ring: 1024,
    };
    let claim = Claim::new("data", "32Mi", Mode::Block);
    world.use_new(
        &claim,
        &User::new("writer", "data", Mode::Block)
            .on("n2")
            .writing(log),
    )?;
    world.advance("writer", BLOCKS)?;
    world.grow("data", "64Mi")?;
    let size = world.sh("writer", &format!("blockdev --getsize64 {disk}"))?;
    ensure!(
        size == (64_u32 << 20).to_string(),
        "64Mi were asked for, the disk has {size} bytes"
    );
    world.advance("writer", BLOCKS)?;
    let written = world.stop_writer("writer")?;
    let blocks = world.verify("writer", log, written)?;
    world.sh(
        "writer",
        &format!(
            "dd if=/dev/zero of={disk} bs=1M seek=63 count=1 oflag=direct conv=notrunc,fsync 2>&1"
        ),
    )?;
    Ok(format!(
        "32 → 64 MiB under {blocks} blocks, the slowest {:.2?}",
        written.longest
    ))
}

/// A class that allows few operations per second holds, and goes again. Numbers are of this very run, and the limit is one
/// that a busy machine exceeds, too.
pub(crate) fn limits(world: &World<'_>) -> Result<String> {
    let (slow, free) = (
        world.attributes("slow", &json!({"iops": LIMIT.to_string()}))?,
        world.attributes("free", &json!({"iops": "0"}))?,
    );
    let claim = Claim::new("data", "32Mi", Mode::Block);
    world.use_new(&claim, &User::new("user", "data", Mode::Block).on("n2"))?;
    world.fill("user", file(Mode::Block), 32)?;
    let before = rate(world, 1000)?;
    world.modify("data", &slow)?;
    let limited = rate(world, 5 * LIMIT)?;
    world.modify("data", &free)?;
    let after = rate(world, 1000)?;
    ensure!(
        limited < 1.5 * f64::from(LIMIT),
        "{LIMIT} operations per second are allowed, {limited:.0} were had"
    );
    ensure!(
        before > 3.0 * limited,
        "{before:.0} before, {limited:.0} limited: that shows nothing"
    );
    ensure!(
        after > 3.0 * limited,
        "the limit was taken away: {limited:.0} → {after:.0}"
    );
    Ok(format!(
        "{before:.0} → {limited:.0} ({LIMIT} allowed) → {after:.0} reads of 4 KiB per second"
    ))
}

/// Reads of 4 KiB past the page cache, one after the other, per second.
fn rate(world: &World<'_>, count: u32) -> Result<f64> {
    let script = format!(
        "read a _ </proc/uptime; dd if={} of=/dev/null bs=4096 count={count} iflag=direct 2>/dev/null; read b _ </proc/uptime; echo $a $b",
        file(Mode::Block)
    );
    let text = world.sh("user", &script)?;
    let times: Vec<f64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    ensure!(times.len() == 2, "the pod says {text:?}");
    let took = Duration::from_secs_f64((times[1] - times[0]).max(0.01));
    Ok(f64::from(count) / took.as_secs_f64())
}
