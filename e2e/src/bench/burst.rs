//! Many pods at once on one node of a real cluster: with Outboard, and with bridge + host-local, alternating.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Bench;
use super::procfs;
use super::report::{Report, Row};
use super::samples::Samples;
use crate::lab::{Lab, LabConfig, Network};
use crate::site::SiteConfig;
use crate::{images, wait};

const NAMESPACE: &str = "bench";
const SET: &str = "replicaset/burst";
const AIM: f64 = 1.05;

/// So idle the machine's processors must have been for this long before a run: what the other side's pods leave to be done is not
/// to be measured.
const IDLE: f64 = 0.6;
const IDLE_FOR: Duration = Duration::from_secs(3);

/// Whose processor time a burst costs: names of processes as the kernel cuts them, 15 characters.
const OURS: [&str; 2] = ["cni-node", "cni-controller"];
const OVN: [&str; 4] = [
    "ovs-vswitchd",
    "ovsdb-server",
    "ovn-northd",
    "ovn-controller",
];

/// A cluster and its times.
struct Side {
    lab: Lab,
    times: Samples,
    /// Of [`OURS`] and of [`OVN`], per pod.
    work: [Samples; 2],
    failures: usize,
}

/// Two clusters of one node each; one of them always idles.
pub(super) fn measure(bench: &Bench) -> Result<Report> {
    let (pods, runs) = (bench.options.pods, bench.options.runs);
    let mut ours = Side::up(Network::Outboard)?;
    let mut theirs = Side::up(Network::Bridge)?;
    for run in 1..=runs {
        let sides = if run % 2 == 1 {
            [&mut ours, &mut theirs]
        } else {
            [&mut theirs, &mut ours]
        };
        for side in sides {
            quiet()?;
            side.burst(pods)?;
        }
        Bench::say(&format!(
            "run {run}: Outboard {:.1} s, bridge {:.1} s",
            ours.times.values().last().copied().unwrap_or_default() / 1e3,
            theirs.times.values().last().copied().unwrap_or_default() / 1e3
        ));
    }
    let mut report = Report::new(format!(
        "Burst: a ReplicaSet of {pods} pods on one node, from 0 until all are Ready, {runs} alternating runs of each"
    ));
    let bound = theirs.times.p50() * AIM / 1e3;
    report.push(
        Row::new("wall time, median", ours.times.p50() / 1e3, "s")
            .beside("bridge + host-local", theirs.times.p50() / 1e3)
            .at_most(bound, format!("{AIM} × bridge"))
            .of(&ours.times),
    );
    report.push(
        Row::new("wall time, slowest run", ours.times.p99() / 1e3, "s")
            .beside("bridge + host-local", theirs.times.p99() / 1e3)
            .of(&theirs.times),
    );
    for (who, work) in [
        ("cni-node and cni-controller", &ours.work[0]),
        ("OVS and OVN", &ours.work[1]),
    ] {
        let name = format!("processor time per pod of {who}, median");
        report.push(Row::new(name, work.p50(), "ms").of(work));
    }
    let failures = u32::try_from(ours.failures)?;
    let others = u32::try_from(theirs.failures)?;
    report.push(
        Row::new("sandboxes that failed, all runs", f64::from(failures), "")
            .beside("bridge + host-local", f64::from(others))
            .at_most(0.0, "none"),
    );
    Ok(report)
}

/// Waits until the machine has nothing else to do.
pub(super) fn quiet() -> Result<()> {
    let (_, mut ticks) = procfs::idle(procfs::Ticks::default())?;
    let mut since = Instant::now();
    wait::until_true(
        "the machine to become quiet: end what else runs on it",
        Duration::from_secs(300),
        || {
            if since.elapsed() < IDLE_FOR {
                return Ok(false);
            }
            let (idle, now) = procfs::idle(ticks)?;
            (ticks, since) = (now, Instant::now());
            Ok(idle >= IDLE)
        },
    )
}

impl Side {
    fn up(network: Network) -> Result<Self> {
        let site = SiteConfig {
            nodes: 1,
            ..SiteConfig::default()
        };
        let lab = Lab::up(&LabConfig {
            site,
            network,
            ..LabConfig::default()
        })?;
        lab.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n\
             apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {{name: burst, namespace: {NAMESPACE}}}\n\
             spec:\n  replicas: 0\n  selector: {{matchLabels: {{app: burst}}}}\n  template:\n\
             \x20   metadata: {{labels: {{app: burst}}}}\n\
             \x20   spec:\n\
             \x20     automountServiceAccountToken: false\n\
             \x20     enableServiceLinks: false\n\
             \x20     terminationGracePeriodSeconds: 0\n\
             \x20     containers: [{{name: pause, image: {image}, imagePullPolicy: Never}}]\n",
            image = images::PAUSE,
        ))?;
        let mut side = Self {
            lab,
            times: Samples::default(),
            work: Default::default(),
            failures: 0,
        };
        // What the first pod of a cluster pays for is no part of it.
        side.burst(1)?;
        (side.times, side.work) = Default::default();
        Ok(side)
    }

    /// Up from none, and down to none again.
    fn burst(&mut self, pods: u16) -> Result<()> {
        let lab = &self.lab;
        let scale = |count: u16| {
            let replicas = format!("--replicas={count}");
            lab.kubectl(&["scale", "-n", NAMESPACE, SET, &replicas])
        };
        let ready = format!("--for=jsonpath={{.status.readyReplicas}}={pods}");
        let worked = || -> Result<_> { Ok([procfs::cpu_of(&OURS)?, procfs::cpu_of(&OVN)?]) };
        let before = worked()?;
        let begun = Instant::now();
        scale(pods)?;
        lab.kubectl(&["wait", "-n", NAMESPACE, &ready, SET, "--timeout=300s"])?;
        let elapsed = begun.elapsed();
        for ((work, before), now) in self.work.iter_mut().zip(before).zip(worked()?) {
            work.push(now.saturating_sub(before) / u32::from(pods));
        }
        let failed = "--field-selector=reason=FailedCreatePodSandBox";
        let events = lab.kubectl(&["get", "events", "-n", NAMESPACE, failed, "-o", "name"])?;
        self.failures += events.lines().count();
        lab.kubectl(&["delete", "events", "-n", NAMESPACE, "--all"])?;
        scale(0)?;
        lab.wait_for("the pods to go", Duration::from_secs(120), |lab| {
            Ok(lab
                .kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "name"])?
                .is_empty())
        })?;
        self.times.push(elapsed);
        Ok(())
    }
}
