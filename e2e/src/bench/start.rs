//! cni-controller's start with many ports in the northbound database: time until it is ready, and memory.

use std::time::Duration;

use anyhow::Result;

use super::cluster::{self, Cluster};
use super::report::{Report, Row};
use super::samples::Samples;
use super::{Bench, etcd, procfs};

const PORTS: &str = "Logical_Switch_Port";
/// Room for 100,000 pods.
const POD_CIDRS: &str = "10.128.0.0/13,fd00:10:128::/64";
const PODS_PER_NODE: u32 = 100;
/// Above this many ports northd would be at work for minutes, and is stopped: it takes no part in what is measured.
const NORTHD_ENDS: u32 = 5000;
const LIMIT: Duration = Duration::from_secs(600);

struct Figures {
    first: Duration,
    ready: Samples,
    served: Samples,
    /// Processor time until then: what a busy machine does not change.
    worked: Samples,
    resident: f64,
    peak: f64,
}

/// A cluster of its own for each number of ports.
pub(super) fn measure(bench: &Bench) -> Result<Report> {
    let mut report = Report::new(
        "Start of cni-controller with as many pods as ports in NB: from exec to /readyz, and to the port of a pod that waits",
    );
    for &count in &bench.options.start_ports {
        Bench::say(&format!("{count} ports"));
        let figures = one(bench, count)?;
        rows(&mut report, count, &figures);
    }
    report.note("the ports are those that cni-controller itself allocated before it was stopped; one node for 100 pods");
    report.note("kube-ovn, elsewhere: 4.4 s with 2,000 ports");
    Ok(report)
}

fn one(bench: &Bench, count: u32) -> Result<Figures> {
    let mut cluster = Cluster::up(bench)?;
    if count > NORTHD_ENDS {
        cluster.master().process("northd").kill9()?;
    }
    let nodes = count.div_ceil(PODS_PER_NODE);
    cluster
        .etcd
        .put((0..nodes).map(|n| etcd::node(&format!("f{n}"), n)))?;
    let pod = |n: u32| {
        etcd::pod(
            &format!("p{n}"),
            n,
            &format!("f{}", n / PODS_PER_NODE % nodes),
        )
    };
    cluster.etcd.put((0..count).map(pod))?;
    let ports = bench.runtime.block_on(cluster.ports())?;
    let all = usize::try_from(count)?;
    let begun = cluster.start_controller(POD_CIDRS)?;
    let reached = bench
        .runtime
        .block_on(cluster::count(&ports, PORTS, all, LIMIT))?;
    Bench::say(&format!(
        "{count} addresses from nothing in {:.1?}",
        reached - begun
    ));
    bench.runtime.block_on(cluster.ready(LIMIT))?;
    cluster.controller().terminate()?;

    let mut figures = Figures {
        first: reached - begun,
        ready: Samples::default(),
        served: Samples::default(),
        worked: Samples::default(),
        resident: 0.0,
        peak: 0.0,
    };
    let rounds = if count > NORTHD_ENDS { 3 } else { 7 };
    for (round, wanted) in (0..rounds).zip(all + 1..) {
        cluster.etcd.put(std::iter::once(pod(count + round)))?;
        let begun = cluster.start_controller(POD_CIDRS)?;
        let (ready, served) = bench.runtime.block_on(async {
            tokio::join!(
                cluster.ready(LIMIT),
                cluster::count(&ports, PORTS, wanted, LIMIT)
            )
        });
        figures.ready.push(ready? - begun);
        figures.served.push(served? - begun);
        let pid = cluster.controller().pid()?;
        figures.worked.push(procfs::cpu(pid)?);
        let memory = procfs::memory(pid)?;
        figures.resident = figures.resident.max(memory.resident);
        figures.peak = figures.peak.max(memory.peak);
        cluster.controller().terminate()?;
    }
    Ok(figures)
}

fn rows(report: &mut Report, count: u32, figures: &Figures) {
    let (seconds, mib) = match count {
        2000 => (Some(0.2), None),
        100_000 => (Some(10.0), Some(300.0)),
        _ => (None, None),
    };
    let row = |what: &str, value, unit| Row::new(format!("{what}, {count} ports"), value, unit);
    let aimed = |row: Row| match seconds {
        Some(bound) => row.at_most(bound, format!("{bound} s")),
        None => row,
    };
    let (ready, served) = (figures.ready.p50() / 1e3, figures.served.p50() / 1e3);
    report.push(
        aimed(row("until a waiting pod has its port, median", served, "s")).of(&figures.served),
    );
    report.push(aimed(row("until ready, median", ready, "s")).of(&figures.ready));
    let worked = row(
        "its processor time, median",
        figures.worked.p50() / 1e3,
        "s",
    );
    report.push(worked.of(&figures.worked));
    let peak = row("memory, at most", figures.peak, "MiB");
    report.push(match mib {
        // The aim is in MB.
        Some(bound) => peak.at_most(bound * 1e6 / f64::from(1 << 20), format!("{bound} MB")),
        None => peak,
    });
    report.push(row("memory, when ready", figures.resident, "MiB"));
    let rate = f64::from(count) / figures.first.as_secs_f64();
    report.push(row("addresses from nothing, start included", rate, "/s"));
}
