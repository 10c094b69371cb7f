//! Many pods at once on a host, beside as many on a plain node of the same cluster, alternating.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::Bench;
use super::super::burst::quiet;
use super::super::report::{Report, Row, is_development_build};
use super::super::samples::Samples;
use crate::images;
use crate::lab::{Lab, LabConfig};

const NAMESPACE: &str = "bench";
/// Functions of the card beyond the pods: CoreDNS may be on the host.
const SPARE: u32 = 8;

/// A ReplicaSet whose pods are all on one node.
struct Side<'a> {
    lab: &'a Lab,
    node: &'static str,
    times: Samples,
    failures: u32,
}

pub(super) fn measure(bench: &Bench) -> Result<Report> {
    let (pods, runs) = (bench.options.pods, bench.options.runs);
    let lab = Lab::up(&LabConfig {
        card_functions: u32::from(pods) + SPARE,
        ..LabConfig::dpu(None, 1)
    })?;
    lab.apply(&format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n"
    ))?;
    let mut host = Side::create(&lab, "h1")?;
    let mut plain = Side::create(&lab, "m")?;
    for run in 1..=runs {
        let sides = if run % 2 == 1 {
            [&mut host, &mut plain]
        } else {
            [&mut plain, &mut host]
        };
        for side in sides {
            // A development build measures nothing: it need not wait for a quiet machine.
            if !is_development_build() {
                quiet()?;
            }
            side.burst(pods)?;
        }
        let last = |side: &Side<'_>| side.times.values().last().copied().unwrap_or_default() / 1e3;
        Bench::say(&format!(
            "run {run}: host {:.1} s, plain {:.1} s",
            last(&host),
            last(&plain)
        ));
    }
    let mut report = Report::new(format!(
        "Burst: a ReplicaSet of {pods} pods, from 0 until all are Ready, on a host and on a plain node of one cluster, {runs} runs of each"
    ));
    report.push(
        Row::new("wall time on a host, median", host.times.p50() / 1e3, "s")
            .beside("plain", plain.times.p50() / 1e3)
            .of(&host.times),
    );
    report.push(
        Row::new(
            "wall time on a host, slowest run",
            host.times.p99() / 1e3,
            "s",
        )
        .beside("plain", plain.times.p99() / 1e3)
        .of(&plain.times),
    );
    report.push(
        Row::new("sandboxes that failed, all runs", host.failures.into(), "")
            .beside("plain", plain.failures.into())
            .at_most(0.0, "none"),
    );
    report.note("both nodes are on one machine, and the plain one is the master: only the two networks' own work differs");
    Ok(report)
}

impl<'a> Side<'a> {
    fn create(lab: &'a Lab, node: &'static str) -> Result<Self> {
        lab.apply(&format!(
            "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {{name: burst-{node}, namespace: {NAMESPACE}}}\n\
             spec:\n  replicas: 0\n  selector: {{matchLabels: {{app: burst-{node}}}}}\n  template:\n\
             \x20   metadata: {{labels: {{app: burst-{node}}}}}\n\
             \x20   spec:\n\
             \x20     nodeSelector: {{kubernetes.io/hostname: {node}}}\n\
             \x20     automountServiceAccountToken: false\n\
             \x20     enableServiceLinks: false\n\
             \x20     terminationGracePeriodSeconds: 0\n\
             \x20     containers: [{{name: pause, image: {image}, imagePullPolicy: Never}}]\n",
            image = images::PAUSE,
        ))?;
        let mut side = Self {
            lab,
            node,
            times: Samples::default(),
            failures: 0,
        };
        // What the first pod of a node pays for is no part of it.
        side.burst(1)?;
        side.times = Samples::default();
        Ok(side)
    }

    /// Up from none, and down to none again.
    fn burst(&mut self, pods: u16) -> Result<()> {
        let lab = self.lab;
        let set = format!("replicaset/burst-{}", self.node);
        let scale = |count: u16| {
            let replicas = format!("--replicas={count}");
            lab.kubectl(&["scale", "-n", NAMESPACE, &set, &replicas])
        };
        let ready = format!("--for=jsonpath={{.status.readyReplicas}}={pods}");
        let begun = Instant::now();
        scale(pods)?;
        lab.kubectl(&["wait", "-n", NAMESPACE, &ready, &set, "--timeout=300s"])?;
        self.times.push(begun.elapsed());
        let failed = "--field-selector=reason=FailedCreatePodSandBox";
        let events = lab.kubectl(&["get", "events", "-n", NAMESPACE, failed, "-o", "name"])?;
        self.failures += u32::try_from(events.lines().count())?;
        lab.kubectl(&["delete", "events", "-n", NAMESPACE, "--all"])?;
        scale(0)?;
        lab.wait_for("the pods to go", Duration::from_secs(120), |lab| {
            Ok(lab
                .kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "name"])?
                .is_empty())
        })
    }
}
