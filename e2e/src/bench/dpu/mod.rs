//! The network split between a host and its DPU: ADD beside a plain node's, the channel after a cut, a burst of pods, and what
//! a handshake by annotations costs instead.

mod burst;
mod handshake;
mod resync;

use std::fs;

use anyhow::{Context as _, Result};

use super::Bench;
use super::pods::{Place, Plugin, Pods};
use super::report::{Report, Row};
use super::samples::Samples;
use super::stages;
use crate::node::Node;
use crate::pair_lab::PairLab;

/// What an ADD on a host may take beyond one on a plain node, in ms.
const MARGIN: f64 = 2.0;
/// Functions of the card beyond the pods that stay: for the pods that come and go, and for some to spare.
const SPARE: u32 = 6;

/// One side's times.
#[derive(Default)]
struct Times {
    add: Samples,
    del: Samples,
}

/// ADD on both nodes with one number of ports after the other, then the cuts with the last; and the handshake on a ground of its own.
pub(super) fn measure(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(format!(
        "A host behind its DPU: ADD and DEL, {} of each kind, alternating with those on a plain node of the same OVN",
        bench.options.samples
    ));
    let channel = split(bench, &mut report)?;
    handshake::measure(bench, channel, &mut report)?;
    Ok(report)
}

/// The burst needs kubelets: a section of its own.
pub(super) fn measure_burst(bench: &Bench) -> Result<Report> {
    burst::measure(bench)
}

/// What an ADD takes longer on the host than on the plain node, with the first number of ports.
fn split(bench: &Bench, report: &mut Report) -> Result<f64> {
    let most = bench.options.ports.iter().copied().max().unwrap_or(1);
    let pair = PairLab::up(u32::from(most) + SPARE)?;
    let central = &pair.lab.ovn.central;
    let mut plain = Pods::at(
        bench,
        central,
        &Place {
            node: pair.plain(),
            chassis: pair.plain().name(),
            host: None,
            first: 1000,
        },
    )?;
    let mut host = Pods::at(
        bench,
        central,
        &Place {
            node: pair.host(),
            chassis: pair.dpu().name(),
            host: Some(pair.host().name()),
            first: 30_000,
        },
    )?;
    let mut channel = None;
    let mut ports = 0;
    for &count in &bench.options.ports {
        Bench::say(&format!("{count} pods on the plain node and on the host"));
        plain.fill(count, false)?;
        host.fill(count, false)?;
        ports = ports.max(count);
        let nodes = [pair.plain(), pair.host(), pair.dpu()];
        let [plain_end, host_end, dpu_end] = nodes.map(|node| end(&pair, node));
        let (plain_end, host_end, dpu_end) = (plain_end?, host_end?, dpu_end?);
        let (mut ours, mut others) = (Times::default(), Times::default());
        for round in 0..bench.options.samples {
            let mut sides = [(&mut plain, &mut others), (&mut host, &mut ours)];
            if round % 2 == 1 {
                sides.reverse();
            }
            for (pods, times) in sides {
                sample(bench, pods, times)?;
            }
        }
        rows(report, count, &ours, &others);
        channel.get_or_insert(ours.add.p50() - others.add.p50());
        let log = |node| pair.lab.daemon(node).log();
        for (who, stages) in [
            ("plain", stages::of_adds(&log(pair.plain())?, plain_end)?),
            ("host", stages::of_adds(&log(pair.host())?, host_end)?),
            ("DPU", stages::of_attaches(&log(pair.dpu())?, dpu_end)?),
        ] {
            for (stage, samples) in stages {
                let what = format!("ADD, {count} ports, {who}: {stage}, p50");
                report.push(Row::new(what, samples.p50(), "ms").of(&samples));
            }
        }
    }
    resync::measure(bench, &pair, ports, report)?;
    channel.context("--ports names no number")
}

/// Where a node's log ends.
fn end(pair: &PairLab, node: &Node) -> Result<u64> {
    let log = pair.lab.daemon(node).log()?;
    Ok(fs::metadata(&log).context("cni-node's log")?.len())
}

fn sample(bench: &Bench, pods: &mut Pods<'_>, times: &mut Times) -> Result<()> {
    let fresh = pods.create(1)?;
    for pod in &fresh {
        times.add.push(pods.call("ADD", Plugin::Outboard, pod)?);
        times.del.push(pods.call("DEL", Plugin::Outboard, pod)?);
    }
    bench.runtime.block_on(pods.databases.settle())?;
    pods.remove(&fresh)
}

fn rows(report: &mut Report, count: u16, ours: &Times, others: &Times) {
    let row = |what: &str, value, other| {
        Row::new(format!("{what} on a host, {count} ports"), value, "ms").beside("plain", other)
    };
    report.push(
        row("ADD p50", ours.add.p50(), others.add.p50())
            .at_most(others.add.p50() + MARGIN, format!("plain + {MARGIN} ms"))
            .of(&ours.add),
    );
    report.push(
        row("ADD p99", ours.add.p99(), others.add.p99())
            .at_most(others.add.p99() + MARGIN, format!("plain + {MARGIN} ms"))
            .of(&others.add),
    );
    report.push(row("DEL p50", ours.del.p50(), others.del.p50()).of(&ours.del));
    report.push(row("DEL p99", ours.del.p99(), others.del.p99()).of(&others.del));
}
