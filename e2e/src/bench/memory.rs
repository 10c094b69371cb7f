//! Resident memory of the daemons: idle, and with many ports.

use anyhow::Result;

use super::cluster::{self, Cluster};
use super::pods::{self, Pods};
use super::report::{Report, Row};
use super::{Bench, etcd, procfs};
use crate::cni_lab::CniLab;

const POD_CIDRS: &str = "10.244.0.0/16,fd00:10:244::/64";
/// 20 MB, in MiB.
const AIM: f64 = 20e6 / (1 << 20) as f64;
/// Daemons of the node that are not ours, for comparison.
const NEIGHBOURS: [&str; 3] = ["ovn-controller", "ovs-vswitchd", "northd"];

/// cni-node on a node with real pods, cni-controller with pods in etcd.
pub(super) fn measure(bench: &Bench) -> Result<Report> {
    let count = bench.options.ports.last().copied().unwrap_or(250);
    let mut report = Report::new(format!("Resident memory, idle and with {count} ports"));
    let lab = CniLab::up(1)?;
    let node = pods::node(&lab);
    let ours = lab.daemon(node).pid()?;
    let idle = procfs::memory(ours)?.resident;
    let neighbours = |_| -> Result<Vec<f64>> {
        let pids = NEIGHBOURS.iter().map(|name| node.process(name).pid());
        pids.map(|pid| Ok(procfs::memory(pid?)?.resident)).collect()
    };
    let before = neighbours(())?;
    Pods::new(bench, &lab)?.fill(count, false)?;
    pair(
        &mut report,
        "cni-node",
        idle,
        procfs::memory(ours)?.resident,
        count,
        true,
    );
    let after = neighbours(())?;
    drop(lab);

    let (idle, busy) = controller(bench, count)?;
    pair(&mut report, "cni-controller", idle, busy, count, true);
    for ((name, idle), busy) in NEIGHBOURS.iter().zip(before).zip(after) {
        pair(&mut report, name, idle, busy, count, false);
    }
    Ok(report)
}

fn controller(bench: &Bench, count: u16) -> Result<(f64, f64)> {
    let mut cluster = Cluster::up(bench)?;
    cluster.etcd.put(std::iter::once(etcd::node("fake", 0)))?;
    cluster.start_controller(POD_CIDRS)?;
    bench.runtime.block_on(cluster.network())?;
    let pid = cluster.controller().pid()?;
    let idle = procfs::memory(pid)?.resident;
    let ports = bench.runtime.block_on(cluster.ports())?;
    cluster
        .etcd
        .put((0..u32::from(count)).map(|n| etcd::pod(&format!("p{n}"), n, "fake")))?;
    let wanted = usize::from(count);
    let all = cluster::count(&ports, "Logical_Switch_Port", wanted, super::ports::LIMIT);
    bench.runtime.block_on(all)?;
    Ok((idle, procfs::memory(pid)?.resident))
}

fn pair(report: &mut Report, name: &str, idle: f64, busy: f64, count: u16, ours: bool) {
    let row = |what: String, value| {
        let row = Row::new(what, value, "MiB");
        if ours { row.at_most(AIM, "20 MB") } else { row }
    };
    report.push(row(format!("{name}, idle"), idle));
    report.push(row(format!("{name}, {count} ports"), busy).beside("idle", idle));
}
