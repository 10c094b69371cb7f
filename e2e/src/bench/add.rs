//! ADD and DEL, beside OVN's own time and beside bridge + host-local, on the same sandboxes, alternating.

use std::fs;

use anyhow::{Context as _, Result};

use super::Bench;
use super::floor::Floor;
use super::pods::{self, Plugin, Pod, Pods};
use super::report::{Report, Row};
use super::samples::Samples;
use super::stages;
use crate::cni_lab::CniLab;

/// What an ADD may take beyond OVN's own time, in ms.
const MARGIN: f64 = 3.0;

#[derive(Default)]
struct Times {
    floor: Samples,
    floor_new: Samples,
    add: Samples,
    del: Samples,
    bridge_add: Samples,
    bridge_del: Samples,
}

/// One lab; it is filled up from one number of ports to the next.
pub(super) fn measure(bench: &Bench) -> Result<Report> {
    let lab = CniLab::up(1)?;
    let node = pods::node(&lab);
    let log = lab.daemon(node).log()?;
    let mut pods = Pods::new(bench, &lab)?;
    let floor = {
        let _runtime = bench.runtime.enter();
        Floor::connect(node)?
    };
    let mut report = Report::new(format!(
        "ADD and DEL by exec of the plugin, {} of each kind, alternating on the same sandboxes",
        bench.options.samples
    ));
    for &count in &bench.options.ports {
        Bench::say(&format!("{count} pods on the node"));
        pods.fill(count, true)?;
        let offset = fs::metadata(&log).context("cni-node's log")?.len();
        let mut times = Times::default();
        for round in 0..bench.options.samples {
            sample(bench, &mut pods, &floor, round, &mut times)?;
        }
        rows(&mut report, count, &times);
        for (stage, samples) in stages::of_adds(&log, offset)? {
            let what = format!("ADD, {count} ports: {stage}, p50");
            report.push(Row::new(what, samples.p50(), "ms").of(&samples));
        }
    }
    report.note("floor: Port and Interface inserted → ovn-installed; the logical port and the link are there, as before an ADD");
    report.note("floor, new: the logical port is inserted in NB at the same moment");
    report.note("bridge: Go plugins bridge + host-local; ADD and DEL include fork and exec, the floor does not");
    Ok(report)
}

fn sample(
    bench: &Bench,
    pods: &mut Pods<'_>,
    floor: &Floor,
    round: u16,
    times: &mut Times,
) -> Result<()> {
    let fresh = pods.create(2)?;
    let [pod, other] = fresh.as_slice() else {
        anyhow::bail!("two pods were asked for");
    };
    // No kind always follows the same other kind.
    for turn in 0..3 {
        match (turn + round) % 3 {
            0 => {
                times.add.push(pods.call("ADD", Plugin::Outboard, pod)?);
                times.del.push(pods.call("DEL", Plugin::Outboard, pod)?);
            }
            1 => {
                times
                    .bridge_add
                    .push(pods.call("ADD", Plugin::Bridge, pod)?);
                times
                    .bridge_del
                    .push(pods.call("DEL", Plugin::Bridge, pod)?);
            }
            _ => floor_sample(bench, pods, floor, other, times)?,
        }
        bench.runtime.block_on(pods.databases.settle())?;
    }
    pods.remove(&fresh)
}

fn floor_sample(
    bench: &Bench,
    pods: &mut Pods<'_>,
    floor: &Floor,
    pod: &Pod,
    times: &mut Times,
) -> Result<()> {
    let link = format!("f{}", pod.container());
    let wire = |name: &str| {
        let netns = pod.container();
        format!("link add {link} type veth peer name {name} netns {netns}\nlink set {link} up\n")
    };
    let cut = format!("link delete {link}\n");
    pods.stopwatch.run(&["ip", "-batch", "-"], &wire("eth0"))?;
    let plugged = bench.runtime.block_on(floor.plug(&link, &pod.port))?;
    times.floor.push(plugged.time);
    bench.runtime.block_on(floor.unplug(&plugged))?;
    pods.stopwatch.run(&["ip", "-batch", "-"], &cut)?;

    let new = pods.port();
    bench.runtime.block_on(pods.databases.settle())?;
    pods.stopwatch.run(&["ip", "-batch", "-"], &wire("eth1"))?;
    let both = floor.plug_new(&pods.databases, &link, &new);
    let (plugged, row) = bench.runtime.block_on(both)?;
    times.floor_new.push(plugged.time);
    bench.runtime.block_on(floor.unplug(&plugged))?;
    pods.stopwatch.run(&["ip", "-batch", "-"], &cut)?;
    bench.runtime.block_on(pods.databases.remove(&[row]))
}

fn rows(report: &mut Report, count: u16, times: &Times) {
    let Times {
        floor,
        floor_new,
        add,
        del,
        bridge_add,
        bridge_del,
    } = times;
    let row = |what: &str, value| Row::new(format!("{what}, {count} ports"), value, "ms");
    report.push(
        row("ADD p50", add.p50())
            .beside("floor", floor.p50())
            .at_most(floor.p50() + MARGIN, format!("floor + {MARGIN} ms"))
            .of(add),
    );
    report.push(
        row("ADD p99", add.p99())
            .beside("floor", floor.p99())
            .of(floor),
    );
    report.push(
        row("ADD p50", add.p50())
            .beside("bridge", bridge_add.p50())
            .of(bridge_add),
    );
    report.push(row("ADD p99", add.p99()).beside("bridge", bridge_add.p99()));
    report.push(
        row("ADD p50", add.p50())
            .beside("floor, new", floor_new.p50())
            .of(floor_new),
    );
    report.push(row("ADD p99", add.p99()).beside("floor, new", floor_new.p99()));
    report.push(
        row("DEL p50", del.p50())
            .beside("bridge", bridge_del.p50())
            .of(del),
    );
    report.push(
        row("DEL p99", del.p99())
            .beside("bridge", bridge_del.p99())
            .of(bridge_del),
    );
}
