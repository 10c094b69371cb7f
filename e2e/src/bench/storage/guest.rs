//! fio in a VM: a volume's image as a vhost-user-blk disk, and as a virtio-blk disk over its block device.
//!
//! One storage daemon exports the image both ways at once, as csi-node's card does for a VM, and one VM has both disks: what differs
//! is the way from the guest's request to the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::csi::{Csi, Source};
use super::fio::{self, Figures, LOADS, Load};
use super::hand::{Disk, Hand, Pattern};
use super::images::Maker;
use super::{MIB, Shape, chain, nothing_left, turns};
use crate::bench::Bench;
use crate::bench::report::{Report, Row};
use crate::bench::samples::Samples;
use crate::host_vm::{HostVm, HostVmSpec};

/// Written before, so that no request meets a hole.
const SIZE: u64 = 512 * MIB;
/// fio's own start under TCG takes seconds.
const START: Duration = Duration::from_secs(60);
/// For a disk to be there.
const LIMIT: Duration = Duration::from_secs(20);
const NAMES: [&str; 2] = ["vhost-user-blk", "virtio-blk over the block device"];

/// Rounds of all loads on both disks, each time begun with the other one.
pub(in crate::bench) fn measure(bench: &Bench) -> Result<Report> {
    let (rounds, seconds) = (bench.options.fio_rounds, bench.options.fio_seconds);
    let (chain, ground) = chain(false)?;
    let csi = Csi::of(bench, &chain);
    let hand = {
        // The recipe of an attached volume is what the daemon is started with.
        let made = csi.create("pattern", SIZE, Shape::Block, Source::Nothing);
        let (volume, _) = bench.runtime.block_on(made)?;
        let attaching = csi.attach(&volume, 0, Shape::Block);
        let attached = bench.runtime.block_on(attaching)?;
        let pattern = Pattern::of(&chain, volume.uuid(), 0)?.with_vhost_user()?;
        bench.runtime.block_on(csi.detach(&attached))?;
        bench.runtime.block_on(csi.delete(&volume))?;
        let (image, _) = Maker::new(&ground)?.blank("guest", SIZE)?;
        let hand = pattern.attach(&image, &ground.join("guest"), Shape::Block, Disk::New)?;
        fio::fill(&hand.target, SIZE)?;
        hand
    };
    let vm = boot(&ground, &hand)?;
    let disks = [
        vm.disk_with_serial("vhost_user_blk", LIMIT)?,
        vm.disk_with_serial("device", LIMIT)?,
    ];
    let mut figures = [(); 2].map(|()| vec![Vec::new(); LOADS.len()]);
    for round in 0..usize::from(rounds) {
        for (n, load) in LOADS.into_iter().enumerate() {
            for turn in turns::order(disks.len(), round) {
                figures[turn][n].push(run(&vm, &disks[turn], load, seconds)?);
            }
        }
        Bench::say(&format!("round {} of {rounds}", round + 1));
    }
    drop(vm);
    hand.detach()?;
    let mut report = Report::new(format!(
        "Disks of a VM: fio in the guest (TCG), 4 KiB at random, direct, {seconds} s each, medians of {rounds} rounds in turns"
    ));
    for (n, load) in LOADS.into_iter().enumerate() {
        rows(&mut report, load, &figures[0][n], &figures[1][n]);
    }
    report.note("both disks are one image of one storage daemon: qcow2 → vhost-user-blk, and qcow2 → FUSE → loop → virtio-blk");
    report.note("the guest's processor is QEMU's interpreter (no KVM): its own share is in both numbers, and large");
    nothing_left(&mut report, &chain)?;
    Ok(report)
}

fn boot(ground: &Path, hand: &Hand) -> Result<HostVm> {
    let mut spec = HostVmSpec::new(ground);
    spec.functions = 0;
    spec.cpus = 1;
    // fio comes with libraries of 80 MiB, packed and unpacked.
    spec.memory = 768;
    spec.programs = vec![PathBuf::from("/usr/bin/fio")];
    let socket = hand.socket.display();
    let device = hand.target.display();
    spec.arguments = [
        "-chardev",
        &format!("socket,id=vhost,path={socket}"),
        "-device",
        "vhost-user-blk-pci,chardev=vhost,num-queues=1,config-wce=off",
        "-blockdev",
        // As KubeVirt gives a block volume.
        &format!("host_device,node-name=device,filename={device},aio=native,cache.direct=on,discard=unmap"),
        "-device",
        "virtio-blk-pci,drive=device,serial=device,num-queues=1,write-cache=on",
    ]
    .map(str::to_owned)
    .into();
    HostVm::boot(spec)
}

fn run(vm: &HostVm, disk: &str, load: Load, seconds: u16) -> Result<Figures> {
    let time = Duration::from_secs(seconds.into());
    let line = load.line(&Path::new("/dev").join(disk), SIZE, time);
    let output = vm
        .start(&format!("/usr/bin/{line}"))?
        .finish(START + time)?;
    fio::figures(&output.out).with_context(|| format!("in the guest: {}", output.err))
}

fn rows(report: &mut Report, load: Load, ours: &[Figures], other: &[Figures]) {
    let samples = |figures: &[Figures], of: fn(&Figures) -> f64| {
        let mut samples = Samples::default();
        figures.iter().for_each(|f| samples.note(of(f)));
        samples
    };
    let mut row = |part: &str, unit: &'static str, of: fn(&Figures) -> f64| {
        let what = format!("{}, depth {}: {part}", load.kind, load.depth);
        let (ours, other) = (samples(ours, of), samples(other, of));
        let row = Row::new(format!("{what}, {}", NAMES[0]), ours.p50(), unit);
        report.push(row.beside(NAMES[1], other.p50()).of(&ours));
    };
    row("requests", "IOPS", |figures| figures.iops);
    row("latency p50", "µs", |figures| figures.half);
    row("latency p99", "µs", |figures| figures.most);
}
