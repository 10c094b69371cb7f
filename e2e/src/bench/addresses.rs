//! Time until many pods that are bound at once have their addresses.

use std::time::Duration;

use anyhow::{Context as _, Result};
use ovsdb::Replica;
use tokio::time::Instant;

use super::cluster::{self, Cluster};
use super::report::{Report, Row};
use super::samples::Samples;
use super::{Bench, etcd};

const POD_CIDRS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/64"];
const NB: &str = "Logical_Switch_Port";
const SB: &str = "Port_Binding";
const ROUNDS: usize = 3;
const LIMIT: Duration = Duration::from_secs(60);
const AIM: f64 = 2000.0;

struct Scene<'a> {
    bench: &'a Bench,
    cluster: Cluster,
    ports: Replica,
    bindings: Replica,
}

#[derive(Default)]
struct Times {
    /// Until the pods were written, and until they had their ports in NB and SB, from the first one's write on.
    written: Samples,
    north: Samples,
    south: Samples,
    /// Until the ports of deleted pods were gone.
    gone: Samples,
    /// From the moment at which all pods could have their ports.
    at_once: Samples,
}

/// The pods come and go a few times.
pub(super) fn measure(bench: &Bench) -> Result<Report> {
    let mut cluster = Cluster::up(bench)?;
    cluster.etcd.put(std::iter::once(etcd::node("fake", 0)))?;
    cluster.start_controller(&POD_CIDRS.join(","))?;
    bench.runtime.block_on(cluster.network())?;
    let ports = bench.runtime.block_on(cluster.ports())?;
    let bindings = bench.runtime.block_on(cluster.bindings())?;
    let mut scene = Scene {
        bench,
        cluster,
        ports,
        bindings,
    };
    let mut times = Times::default();
    for _ in 0..ROUNDS {
        scene.one_after_the_other(&mut times)?;
        scene.all_at_once(&mut times)?;
    }
    Ok(report(bench.options.bound, &times))
}

impl Scene<'_> {
    /// The pods appear as fast as they can be written.
    fn one_after_the_other(&mut self, times: &mut Times) -> Result<()> {
        let wanted = usize::try_from(self.bench.options.bound)?;
        let (ports, bindings) = (self.ports.clone(), self.bindings.clone());
        let arrival = self.bench.runtime.spawn(async move {
            let north = cluster::count(&ports, NB, wanted, LIMIT);
            tokio::join!(north, cluster::count(&bindings, SB, wanted, LIMIT))
        });
        let begun = Instant::now();
        self.write()?;
        times.written.push(begun.elapsed());
        let (north, south) = self.bench.runtime.block_on(arrival).context("the wait")?;
        times.north.push(north? - begun);
        times.south.push(south? - begun);
        let begun = Instant::now();
        times.gone.push(self.delete()? - begun);
        Ok(())
    }

    /// The pods are there and known, but their subnet is not: it comes.
    fn all_at_once(&mut self, times: &mut Times) -> Result<()> {
        let runtime = &self.bench.runtime;
        let (key, _) = etcd::subnet(&POD_CIDRS);
        self.cluster.etcd.delete(std::iter::once(key))?;
        runtime.block_on(self.cluster.no_network())?;
        self.write()?;
        let bound = f64::from(self.bench.options.bound);
        runtime.block_on(
            self.cluster
                .metric("outboard_controller_blocked_units", bound),
        )?;
        let begun = Instant::now();
        self.cluster
            .etcd
            .put(std::iter::once(etcd::subnet(&POD_CIDRS)))?;
        let wanted = usize::try_from(self.bench.options.bound)?;
        let reached = runtime.block_on(cluster::count(&self.ports, NB, wanted, LIMIT))?;
        times.at_once.push(reached - begun);
        self.delete().map(drop)
    }

    fn write(&mut self) -> Result<()> {
        let pods = (0..self.bench.options.bound).map(|n| etcd::pod(&format!("p{n}"), n, "fake"));
        self.cluster.etcd.put(pods)
    }

    /// Deletes the pods; when their last port was gone from NB.
    fn delete(&mut self) -> Result<Instant> {
        let keys = (0..self.bench.options.bound).map(|n| etcd::pod_key(&format!("p{n}")));
        self.cluster.etcd.delete(keys)?;
        let runtime = &self.bench.runtime;
        let gone = runtime.block_on(cluster::count(&self.ports, NB, 0, LIMIT))?;
        runtime.block_on(cluster::count(&self.bindings, SB, 0, LIMIT))?;
        Ok(gone)
    }
}

fn report(count: u32, times: &Times) -> Report {
    let Times {
        written,
        north,
        south,
        gone,
        at_once,
    } = times;
    let mut report = Report::new(format!(
        "{count} pods bound to one node while cni-controller runs, median of {ROUNDS}"
    ));
    let rate = |samples: &Samples| f64::from(count) / (samples.p50() / 1e3);
    let aimed = |what: &str, samples| {
        Row::new(what, rate(samples), "/s")
            .at_least(AIM, format!("{AIM} /s"))
            .of(samples)
    };
    report.push(aimed("addresses, all at once", at_once));
    report.push(
        aimed("addresses, as the pods are written", north).beside("pods written", rate(written)),
    );
    let row = |what: &str, samples: &Samples| {
        let row = Row::new(what, samples.p50() / 1e3, "s");
        row.beside("writing the pods", written.p50() / 1e3)
            .of(samples)
    };
    report.push(row("all at once: until all have their addresses", at_once));
    report.push(row(
        "as written: until all have their addresses (NB)",
        north,
    ));
    report.push(row(
        "as written: until all are in SB, where cni-node sees them",
        south,
    ));
    report.push(row("deleted: until no port is left in NB", gone));
    report.note("as written: the pods are written into etcd one by one, from where the API server's watch has them; no rate above \"pods written\" is possible");
    report.note("all at once: cni-controller knows all pods, and then their Subnet comes");
    report.note("kube-ovn, elsewhere: 21 /s");
    report
}
