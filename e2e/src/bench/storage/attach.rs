//! From ControllerPublishVolume until a workload sees its volume, alone and many at once, beside the same by hand.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;

use super::csi::{Attached, Csi, Source, Volume};
use super::hand::{Disk, Hand, Pattern};
use super::images::Maker;
use super::{GIB, Many, Shape, chain, joined, nothing_left, stages, turns};
use crate::bench::Bench;
use crate::bench::report::{Report, Row};
use crate::storage::Chain;

/// What the programs of the chain may take beyond what is done by hand, in ms.
const MARGIN: f64 = 20.0;
/// What one of many may take, in times of one alone.
const TOGETHER: f64 = 2.0;
/// Small, since mkfs takes its time by size.
const SIZE: u64 = GIB;

/// The chain, and by hand.
#[derive(Default)]
struct Pair {
    ours: Many,
    floor: Many,
}

/// Many at once: each one's time, and from the first's begin to the last's end.
struct Together {
    each: Many,
    wall: Duration,
}

/// All that the section works with.
struct World<'a> {
    bench: &'a Bench,
    csi: Csi,
    maker: Maker,
    ground: PathBuf,
}

/// One chain; both hosts.
pub(in crate::bench) fn measure(bench: &Bench) -> Result<Report> {
    let (chain, ground) = chain(true)?;
    let world = World {
        bench,
        csi: Csi::of(bench, &chain),
        maker: Maker::new(&ground)?,
        ground,
    };
    let (samples, count) = (bench.options.attaches, bench.options.at_once);
    let mut report = Report::new(format!(
        "Attach: ControllerPublish → NodeStage → NodePublish, 1 GiB, ext4, {samples} of each kind, alternating with the \
         same by hand; then {count} at once"
    ));
    for (host, place) in [(0, "same node"), (1, "other host (NBD, TLS)")] {
        Bench::say(place);
        let volume = world.volume("pattern")?;
        let pattern = world.pattern(&chain, &volume, host)?;
        world.bench.runtime.block_on(world.csi.delete(&volume))?;
        let (new, used, volumes) = world.alone(&pattern, host, samples)?;
        let logs = chain.logs()?;
        for (nth, what, pair) in [(0, "new", &new), (1, "used", &used)] {
            let what = format!("{place}, {what} volume");
            rows(&mut report, &what, pair);
            for (stage, samples) in stages::of_attaches(&logs, &volumes, nth) {
                let row = Row::new(format!("{what}: {stage}, p50"), samples.p50(), "ms");
                report.push(row.of(&samples));
            }
        }
        report.note(format!(
            "{place}: {} QMP commands, recorded by the engine and sent in one go",
            pattern.commands()
        ));
        if host == 0 {
            Bench::say(&format!("{count} at once"));
            let ours = world.together(count)?;
            let floor = world.by_hand_together(&pattern, count)?;
            let alone = [&new, &used];
            for (n, what) in ["new", "used"].into_iter().enumerate() {
                together(&mut report, count, what, &ours[n], &floor[n], alone[n]);
            }
        }
    }
    report.note("new: mkfs.ext4 is part of NodeStage and of the floor; used: e2fsck -p is");
    report.note("floor: qemu-storage-daemon started, its QMP commands, losetup, blkid, mkfs or e2fsck, mount, bind mount");
    report.note("at once: on 2 cores each one waits for the others; the floor of many is as many threads by hand");
    nothing_left(&mut report, &chain)?;
    Ok(report)
}

impl World<'_> {
    fn name(&self, what: &str) -> String {
        format!("{what}-{}", self.bench.serial())
    }

    fn volume(&self, what: &str) -> Result<Volume> {
        let name = self.name(what);
        let made = self.csi.create(&name, SIZE, Shape::Ext4, Source::Nothing);
        Ok(self.bench.runtime.block_on(made)?.0)
    }

    fn attach(&self, volume: &Volume, host: usize) -> Result<Attached> {
        let attaching = self.csi.attach(volume, host, Shape::Ext4);
        self.bench.runtime.block_on(attaching)
    }

    fn detach(&self, attached: &Attached) -> Result<()> {
        self.bench.runtime.block_on(self.csi.detach(attached))
    }

    fn pattern(&self, chain: &Chain, volume: &Volume, host: usize) -> Result<Pattern> {
        let attached = self.attach(volume, host)?;
        let pattern = Pattern::of(chain, volume.uuid(), host)?;
        self.detach(&attached)?;
        Ok(pattern)
    }

    /// New ones, and the same ones again.
    fn alone(
        &self,
        pattern: &Pattern,
        host: usize,
        samples: u16,
    ) -> Result<(Pair, Pair, Vec<Volume>)> {
        let (mut new, mut used, mut volumes) = (Pair::default(), Pair::default(), Vec::new());
        for round in 0..usize::from(samples) {
            let volume = self.volume("alone")?;
            let (image, _) = self.maker.blank(&self.name("alone"), SIZE)?;
            let both = [(Disk::New, &mut new), (Disk::Used, &mut used)];
            for (disk, pair) in both {
                for kind in turns::order(2, round) {
                    if kind == 0 {
                        let attached = self.attach(&volume, host)?;
                        pair.ours.push(&attached.times);
                        self.detach(&attached)?;
                    } else {
                        let hand = by_hand(pattern, &image, &self.ground, disk)?;
                        pair.floor.push(&hand.times);
                        hand.detach()?;
                    }
                }
            }
            self.bench.runtime.block_on(self.csi.delete(&volume))?;
            self.maker.remove(&image)?;
            volumes.push(volume);
        }
        Ok((new, used, volumes))
    }

    /// All of them new, and all of them again; at the first host.
    fn together(&self, count: u16) -> Result<[Together; 2]> {
        let volumes = (0..count).map(|_| self.volume("together"));
        let volumes: Vec<Volume> = volumes.collect::<Result<_>>()?;
        let run = async || -> Result<Together> {
            let begun = Instant::now();
            let all = volumes.iter();
            let all = all.map(|volume| Box::pin(self.csi.attach(volume, 0, Shape::Ext4)));
            let attached = try_join_all(all).await?;
            let wall = begun.elapsed();
            try_join_all(attached.iter().map(|one| Box::pin(self.csi.detach(one)))).await?;
            let mut each = Many::default();
            attached.iter().for_each(|one| each.push(&one.times));
            Ok(Together { each, wall })
        };
        let runtime = &self.bench.runtime;
        let both = [runtime.block_on(run())?, runtime.block_on(run())?];
        for volume in &volumes {
            runtime.block_on(self.csi.delete(volume))?;
        }
        Ok(both)
    }

    fn by_hand_together(&self, pattern: &Pattern, count: u16) -> Result<[Together; 2]> {
        let images = (0..count).map(|_| Ok(self.maker.blank(&self.name("hands"), SIZE)?.0));
        let images: Vec<PathBuf> = images.collect::<Result<_>>()?;
        let run = |disk| -> Result<Together> {
            let begun = Instant::now();
            let hands = std::thread::scope(|scope| {
                let ground = &self.ground;
                let mut all = Vec::new();
                for image in &images {
                    all.push(scope.spawn(move || by_hand(pattern, image, ground, disk)));
                }
                let all = all.into_iter().map(|thread| joined(thread.join()));
                all.collect::<Result<Vec<Hand>>>()
            })?;
            let wall = begun.elapsed();
            let mut each = Many::default();
            for hand in hands {
                each.push(&hand.times);
                hand.detach()?;
            }
            Ok(Together { each, wall })
        };
        let both = [run(Disk::New)?, run(Disk::Used)?];
        for image in &images {
            self.maker.remove(image)?;
        }
        Ok(both)
    }
}

fn by_hand(pattern: &Pattern, image: &Path, ground: &Path, disk: Disk) -> Result<Hand> {
    let name = image.file_stem().unwrap_or_default();
    let place = ground.join("hand").join(name);
    pattern.attach(image, &place, Shape::Ext4, disk)
}

fn rows(report: &mut Report, what: &str, pair: &Pair) {
    let (ours, floor) = (&pair.ours, &pair.floor);
    let bound = floor.whole.p50() + MARGIN;
    report.push(
        Row::new(format!("{what}: p50"), ours.whole.p50(), "ms")
            .beside("floor", floor.whole.p50())
            .at_most(bound, format!("floor + {MARGIN} ms"))
            .of(&ours.whole),
    );
    report.push(
        Row::new(format!("{what}: p99"), ours.whole.p99(), "ms")
            .beside("floor", floor.whole.p99())
            .of(&floor.whole),
    );
    let parts = [
        ("publish", &ours.publish, &floor.publish),
        ("stage", &ours.stage, &floor.stage),
        ("bind", &ours.bind, &floor.bind),
    ];
    for (part, ours, floor) in parts {
        report.push(
            Row::new(format!("{what}: {part}, p50"), ours.p50(), "ms").beside("floor", floor.p50()),
        );
    }
}

fn together(
    report: &mut Report,
    count: u16,
    what: &str,
    ours: &Together,
    floor: &Together,
    alone: &Pair,
) {
    let one = alone.ours.whole.p50();
    let row = |part: &str, value| {
        let what = format!("{count} at once, same node, {what} volumes: {part}");
        Row::new(what, value, "ms")
    };
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let times = f64::from(count);
    report.push(
        row("one of them, p50", ours.each.whole.p50())
            .beside("one alone", one)
            .at_most(one * TOGETHER, format!("{TOGETHER} × one alone"))
            .of(&ours.each.whole),
    );
    report.push(
        row("one of them, p50", ours.each.whole.p50())
            .beside("floor", floor.each.whole.p50())
            .of(&floor.each.whole),
    );
    report.push(
        row("one of them, p99", ours.each.whole.p99()).beside("floor", floor.each.whole.p99()),
    );
    report.push(row("from first to last", ms(ours.wall)).beside("floor", ms(floor.wall)));
    report.push(
        row("from first to last, by their number", ms(ours.wall) / times)
            .beside("one alone", one)
            .at_most(one * TOGETHER, format!("{TOGETHER} × one alone")),
    );
}
