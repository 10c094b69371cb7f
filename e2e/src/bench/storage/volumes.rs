//! CreateVolume and DeleteVolume, one after the other and many at once, beside qemu-img by hand.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;

use super::csi::{Csi, Source, Volume};
use super::images::Maker;
use super::{GIB, Shape, chain, nothing_left, turns};
use crate::bench::Bench;
use crate::bench::report::{Report, Row};
use crate::bench::samples::Samples;

#[derive(Default)]
struct Times {
    create: Samples,
    delete: Samples,
    made: Samples,
    removed: Samples,
}

/// One chain; what is made is removed again.
pub(in crate::bench) fn measure(bench: &Bench) -> Result<Report> {
    let count = bench.options.volumes;
    let (chain, ground) = chain(false)?;
    let csi = Csi::of(bench, &chain);
    let maker = Maker::new(&ground)?;
    let mut report = Report::new(format!(
        "CreateVolume and DeleteVolume of 1 GiB, {count} of each, alternating with qemu-img by hand; then {count} at once"
    ));
    Bench::say("one after the other");
    let times = one_by_one(bench, &csi, &maker)?;
    let row = |what: &str, value| Row::new(what, value, "ms");
    let pairs = [
        ("CreateVolume", &times.create, &times.made),
        ("DeleteVolume", &times.delete, &times.removed),
    ];
    for (what, ours, floor) in pairs {
        let p50 = row(&format!("{what} p50"), ours.p50()).beside("by hand", floor.p50());
        report.push(p50.of(ours));
        let p99 = row(&format!("{what} p99"), ours.p99()).beside("by hand", floor.p99());
        report.push(p99.of(floor));
    }
    Bench::say("all at once");
    let begun = Instant::now();
    let volumes = bench.runtime.block_on(create_all(&csi, count))?;
    let created = begun.elapsed();
    let begun = Instant::now();
    bench.runtime.block_on(delete_all(&csi, &volumes))?;
    let deleted = begun.elapsed();
    let (made, removed) = by_hand_at_once(&maker, count)?;
    let rate = |time: Duration| f64::from(count) / time.as_secs_f64();
    let row = |what: &str, time| Row::new(format!("{what}, {count} at once"), rate(time), "/s");
    report.push(row("CreateVolume", created).beside("by hand", rate(made)));
    report.push(row("DeleteVolume", deleted).beside("by hand", rate(removed)));
    report.note("by hand: qemu-img create with the same options and fsync of file and directory; unlink and fsync");
    report.note("a volume's storage daemon is started when it is published first: that is part of section attach");
    nothing_left(&mut report, &chain)?;
    Ok(report)
}

fn one_by_one(bench: &Bench, csi: &Csi, maker: &Maker) -> Result<Times> {
    let mut times = Times::default();
    for round in 0..usize::from(bench.options.volumes) {
        for kind in turns::order(2, round) {
            let name = format!("single-{}", bench.serial());
            if kind == 0 {
                let made = csi.create(&name, GIB, Shape::Ext4, Source::Nothing);
                let (volume, time) = bench.runtime.block_on(made)?;
                times.create.push(time);
                times
                    .delete
                    .push(bench.runtime.block_on(csi.delete(&volume))?);
            } else {
                let (image, time) = maker.blank(&name, GIB)?;
                times.made.push(time);
                times.removed.push(maker.remove(&image)?);
            }
        }
    }
    Ok(times)
}

async fn create_all(csi: &Csi, count: u16) -> Result<Vec<Volume>> {
    let all = (0..count).map(|n| async move {
        let name = format!("together-{n}");
        let made = csi.create(&name, GIB, Shape::Ext4, Source::Nothing).await?;
        anyhow::Ok(made.0)
    });
    try_join_all(all).await
}

async fn delete_all(csi: &Csi, volumes: &[Volume]) -> Result<()> {
    try_join_all(volumes.iter().map(|volume| csi.delete(volume)))
        .await
        .map(drop)
}

/// As many threads as images.
fn by_hand_at_once(maker: &Maker, count: u16) -> Result<(Duration, Duration)> {
    let begun = Instant::now();
    let images = std::thread::scope(|scope| {
        let all: Vec<_> = (0..count)
            .map(|n| scope.spawn(move || maker.blank(&format!("hand-{n}"), GIB)))
            .collect();
        let all = all.into_iter().map(|thread| super::joined(thread.join()));
        all.collect::<Result<Vec<_>>>()
    })?;
    let made = begun.elapsed();
    let begun = Instant::now();
    for (image, _) in images {
        maker.remove(&image)?;
    }
    Ok((made, begun.elapsed()))
}
