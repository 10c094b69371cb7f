//! Clones and snapshots of volumes with data in them: no byte is copied, so the size does not matter.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::csi::{Attached, Csi, Source, Volume};
use super::images::Maker;
use super::{GIB, MIB, Shape, chain, fio, nothing_left};
use crate::bench::Bench;
use crate::bench::report::{Report, Row};
use crate::bench::samples::Samples;

/// What a clone may take, in ms.
const AIM: f64 = 1000.0;
const ROUNDS: usize = 5;
/// What stays free on the disk.
const RESERVE: u64 = 2 * GIB;
/// This much of a clone is compared with its source, at the begin, in the middle and at the end.
const COMPARED: u64 = 4 * MIB;

#[derive(Default)]
struct Times {
    clone: Samples,
    snapshot: Samples,
    restore: Samples,
    floor: Samples,
}

/// One chain; volumes one after the other.
pub(in crate::bench) fn measure(bench: &Bench) -> Result<Report> {
    let (chain, ground) = chain(false)?;
    let csi = Csi::of(bench, &chain);
    let maker = Maker::new(&ground)?;
    let mut report = Report::new(format!(
        "Clones and snapshots of volumes that are full and in use, {ROUNDS} of each"
    ));
    for &gib in &bench.options.clone_gib {
        Bench::say(&format!("{gib} GiB: writing"));
        let name = format!("source-{gib}");
        let bytes = u64::from(gib) * GIB;
        room(&ground, bytes)?;
        let made = csi.create(&name, bytes, Shape::Block, Source::Nothing);
        let (source, _) = bench.runtime.block_on(made)?;
        let attached = bench
            .runtime
            .block_on(csi.attach(&source, 0, Shape::Block))?;
        fio::fill(&attached.device, bytes)?;
        let begun = Instant::now();
        let times = rounds(bench, &csi, &maker, &source, bytes)?;
        Bench::say(&format!("{gib} GiB: measured in {:.1?}", begun.elapsed()));
        compare(bench, &csi, &attached, &source, bytes)?;
        bench.runtime.block_on(csi.detach(&attached))?;
        bench.runtime.block_on(csi.delete(&source))?;
        rows(&mut report, gib, &times);
    }
    report.note("floor: qemu-img create of the two overlays that a clone of a volume in use needs, with fsync");
    report.note(
        "each one's first, middle and last MiBs were compared with the source's through the chain",
    );
    nothing_left(&mut report, &chain)?;
    Ok(report)
}

fn rounds(bench: &Bench, csi: &Csi, maker: &Maker, source: &Volume, bytes: u64) -> Result<Times> {
    let mut times = Times::default();
    let (below, _) = maker.blank("below", bytes)?;
    let name = |what: &str| format!("{what}-{}", bench.serial());
    for _ in 0..ROUNDS {
        let names = ["clone", "snapshot", "restored"].map(name);
        bench.runtime.block_on(async {
            let from = Source::Volume(source);
            let (clone, time) = csi.create(&names[0], bytes, Shape::Block, from).await?;
            times.clone.push(time);
            let (snapshot, time) = csi.snapshot(&names[1], source).await?;
            times.snapshot.push(time);
            let from = Source::Snapshot(&snapshot);
            let (copy, time) = csi.create(&names[2], bytes, Shape::Block, from).await?;
            times.restore.push(time);
            csi.delete(&copy).await?;
            csi.delete_snapshot(&snapshot).await?;
            csi.delete(&clone).await
        })?;
        let (one, first) = maker.over(&name("over"), &below)?;
        let (other, second) = maker.over(&name("over"), &below)?;
        times.floor.push(first + second);
        maker.remove(&one)?;
        maker.remove(&other)?;
    }
    maker.remove(&below)?;
    Ok(times)
}

/// A disk that gets full is no measurement, and a nuisance to others.
fn room(ground: &Path, bytes: u64) -> Result<()> {
    let statistics = nix::sys::statvfs::statvfs(ground)?;
    let free = statistics.blocks_available() * statistics.fragment_size();
    ensure!(
        free > bytes + RESERVE,
        "{} has {} GiB free: a volume of {} GiB and {} GiB in reserve do not fit; free space, or choose --clone-gib",
        ground.display(),
        free / GIB,
        bytes / GIB,
        RESERVE / GIB
    );
    Ok(())
}

/// A clone has the bytes of its source.
fn compare(bench: &Bench, csi: &Csi, source: &Attached, volume: &Volume, bytes: u64) -> Result<()> {
    let name = format!("compared-{}", bench.serial());
    let cloning = csi.create(&name, bytes, Shape::Block, Source::Volume(volume));
    let (clone, _) = bench.runtime.block_on(cloning)?;
    let attached = bench
        .runtime
        .block_on(csi.attach(&clone, 0, Shape::Block))?;
    for at in [0, bytes / 2, bytes - COMPARED] {
        let (theirs, ours) = (part(&attached.device, at)?, part(&source.device, at)?);
        ensure!(
            theirs == ours,
            "clone {} differs from its source at byte {at}",
            clone.id
        );
        ensure!(
            ours.iter().any(|byte| *byte != 0),
            "the source was not written at byte {at}"
        );
    }
    bench.runtime.block_on(csi.detach(&attached))?;
    bench.runtime.block_on(csi.delete(&clone))?;
    Ok(())
}

fn part(device: &Path, at: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(COMPARED)?];
    File::open(device)
        .and_then(|file| file.read_exact_at(&mut bytes, at))
        .with_context(|| format!("cannot read {}", device.display()))?;
    Ok(bytes)
}

fn rows(report: &mut Report, gib: u16, times: &Times) {
    let aim = |row: Row| row.at_most(AIM, "1 s");
    let row = |what: &str, samples: &Samples| {
        Row::new(
            format!("{what}, {gib} GiB of data, p50"),
            samples.p50(),
            "ms",
        )
        .of(samples)
    };
    let floor = times.floor.p50();
    report.push(aim(row("clone", &times.clone).beside("floor", floor)));
    let slowest = times.clone.p99();
    let what = format!("clone, {gib} GiB of data, slowest");
    report.push(aim(
        Row::new(what, slowest, "ms").beside("floor", times.floor.p99())
    ));
    report.push(row("snapshot", &times.snapshot));
    report.push(aim(row("volume from a snapshot", &times.restore)));
}
