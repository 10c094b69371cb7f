//! fio with 4 KiB at random: through the chain, through the same chain set up by hand, and on a loop device over a raw file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::csi::{Attached, Csi, Source, Volume};
use super::fio::{self, Figures, LOADS, Load};
use super::hand::{Disk, Hand, Pattern};
use super::images::Maker;
use super::{GIB, Shape, chain, nothing_left, turns};
use crate::bench::Bench;
use crate::bench::report::{Report, Row};
use crate::bench::samples::Samples;
use crate::shell;
use crate::storage::Chain;

/// Of what the same chain by hand does.
const AIM: f64 = 0.95;
/// Written before, so that no request meets a hole.
const SIZE: u64 = GIB;

/// A device, and what was measured on it.
struct Subject {
    name: &'static str,
    device: PathBuf,
    figures: Vec<Vec<Figures>>,
}

/// A volume of the chain and its like by hand. The daemons idle while others are measured.
struct Twins {
    volume: Volume,
    attached: Attached,
    hand: Hand,
    image: PathBuf,
}

/// A loop device over a file.
struct Loop(String);

/// One chain with plain NBD over unix sockets, one with TLS over TCP as a cluster has it.
pub(in crate::bench) fn measure(bench: &Bench) -> Result<Report> {
    let (rounds, seconds) = (bench.options.fio_rounds, bench.options.fio_seconds);
    let mut report = Report::new(format!(
        "Data path: fio, 4 KiB at random, direct, {seconds} s each, medians of {rounds} rounds in turns"
    ));
    Bench::say("same node; other host");
    plain(bench, &mut report)?;
    Bench::say("other host over TLS");
    encrypted(bench, &mut report)?;
    report.note("by hand: the same QMP commands in storage daemons that were started by hand, losetup --direct-io=on");
    report.note(
        "same node: qcow2 → FUSE → loop; other host: qcow2 → NBD → another daemon → FUSE → loop",
    );
    Ok(report)
}

fn plain(bench: &Bench, report: &mut Report) -> Result<()> {
    let (chain, ground) = chain(false)?;
    let csi = Csi::of(bench, &chain);
    let near = twins(bench, &chain, &csi, &ground, 0)?;
    let far = twins(bench, &chain, &csi, &ground, 1)?;
    let raw = ground.join("raw");
    shell::run(&["truncate", "-s", &SIZE.to_string(), &text(&raw)])?;
    let raw_loop = Loop::over(&raw)?;
    let mut subjects = [
        Subject::new("same node", &near.attached.device),
        Subject::new("same node by hand", &near.hand.target),
        Subject::new("other host", &far.attached.device),
        Subject::new("other host by hand", &far.hand.target),
        Subject::new("loop over a raw file", Path::new(&raw_loop.0)),
    ];
    run(bench, &mut subjects)?;
    for (n, load) in LOADS.into_iter().enumerate() {
        let [near, near_hand, far, far_hand, raw] = &subjects;
        let floor = raw.row(n, load);
        pair(report, n, load, near, near_hand);
        pair(report, n, load, far, far_hand);
        report.push(floor);
    }
    drop(raw_loop);
    end(bench, &csi, near)?;
    end(bench, &csi, far)?;
    nothing_left(report, &chain)
}

fn encrypted(bench: &Bench, report: &mut Report) -> Result<()> {
    let (chain, ground) = chain(true)?;
    let csi = Csi::of(bench, &chain);
    let far = twins(bench, &chain, &csi, &ground, 1)?;
    let mut subjects = [
        Subject::new("other host, TLS", &far.attached.device),
        Subject::new("other host, TLS, by hand", &far.hand.target),
    ];
    run(bench, &mut subjects)?;
    for (n, load) in LOADS.into_iter().enumerate() {
        pair(report, n, load, &subjects[0], &subjects[1]);
    }
    end(bench, &csi, far)?;
    nothing_left(report, &chain)
}

fn twins(bench: &Bench, chain: &Chain, csi: &Csi, ground: &Path, host: usize) -> Result<Twins> {
    let name = format!("path-{}", bench.serial());
    let made = csi.create(&name, SIZE, Shape::Block, Source::Nothing);
    let (volume, _) = bench.runtime.block_on(made)?;
    let attaching = csi.attach(&volume, host, Shape::Block);
    let attached = bench.runtime.block_on(attaching)?;
    let (image, _) = Maker::new(ground)?.blank(&name, SIZE)?;
    let pattern = Pattern::of(chain, volume.uuid(), host)?;
    let hand = pattern.attach(&image, &ground.join(&name), Shape::Block, Disk::New)?;
    Ok(Twins {
        volume,
        attached,
        hand,
        image,
    })
}

fn end(bench: &Bench, csi: &Csi, twins: Twins) -> Result<()> {
    twins.hand.detach()?;
    std::fs::remove_file(&twins.image)?;
    bench.runtime.block_on(csi.detach(&twins.attached))?;
    bench.runtime.block_on(csi.delete(&twins.volume))?;
    Ok(())
}

fn run(bench: &Bench, subjects: &mut [Subject]) -> Result<()> {
    for subject in &*subjects {
        fio::fill(&subject.device, SIZE)?;
    }
    let time = Duration::from_secs(bench.options.fio_seconds.into());
    for round in 0..usize::from(bench.options.fio_rounds) {
        for (n, load) in LOADS.into_iter().enumerate() {
            for turn in turns::order(subjects.len(), round) {
                let subject = &mut subjects[turn];
                let figures = load.run(&subject.device, SIZE, time)?;
                subject.figures[n].push(figures);
            }
        }
        Bench::say(&format!(
            "round {} of {}",
            round + 1,
            bench.options.fio_rounds
        ));
    }
    Ok(())
}

impl Subject {
    fn new(name: &'static str, device: &Path) -> Self {
        Self {
            name,
            device: device.to_owned(),
            figures: vec![Vec::new(); LOADS.len()],
        }
    }

    fn samples(&self, load: usize, of: fn(&Figures) -> f64) -> Samples {
        let mut samples = Samples::default();
        self.figures[load].iter().for_each(|f| samples.note(of(f)));
        samples
    }

    fn row(&self, n: usize, load: Load) -> Row {
        let iops = self.samples(n, |figures| figures.iops);
        Row::new(self.what(load), iops.p50(), "IOPS").of(&iops)
    }

    fn what(&self, load: Load) -> String {
        format!("{}, depth {}, {}", load.kind, load.depth, self.name)
    }
}

fn pair(report: &mut Report, n: usize, load: Load, ours: &Subject, floor: &Subject) {
    let by_hand = floor.samples(n, |figures| figures.iops).p50();
    let percent = AIM * 100.0;
    report.push(
        ours.row(n, load)
            .beside("by hand", by_hand)
            .at_least(by_hand * AIM, format!("{percent} % of by hand")),
    );
    let mut latency = |part: &str, of: fn(&Figures) -> f64| {
        let what = format!("{}: latency {part}", ours.what(load));
        let row = Row::new(what, ours.samples(n, of).p50(), "µs");
        report.push(row.beside("by hand", floor.samples(n, of).p50()));
    };
    latency("p50", |figures| figures.half);
    latency("p99", |figures| figures.most);
}

impl Loop {
    fn over(file: &Path) -> Result<Self> {
        let options = ["losetup", "--find", "--show", "--direct-io=on"];
        shell::run(&[&options[..], &[&text(file)]].concat()).map(Self)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = shell::run(&["losetup", "--detach", &self.0]);
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
