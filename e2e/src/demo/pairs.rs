//! The second half of the demo: hosts whose network is on their DPUs, and a DPU that reboots while the pods of its host run.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::table::Table;
use crate::checks::Seen;
use crate::lab::{Lab, LabConfig};
use crate::pairs::{self, Pair, PairScene, Watch};
use crate::pods::Family::{V4, V6};
use crate::{leaks, wait};

type Look = fn(&PairScene<'_>) -> Result<Seen>;

/// Longest time that anything may take to come back.
const RETURN: Duration = Duration::from_secs(60);
/// Rows of a Service follow its pods' readiness.
const PATIENCE: Duration = Duration::from_secs(10);

const ROWS: [([&str; 3], Look); 12] = [
    (
        ["no Open vSwitch, no OVN", "h1, h2", "their processes"],
        no_switch,
    ),
    (
        ["host pod → all other pods", "web (h1)", "m, d1, h2, d2"],
        |s| s.reaches_all("h1"),
    ),
    (
        ["host pod pings all others", "web (h2)", "m, h1, d1, d2"],
        |s| s.pings_all("h2"),
    ),
    (
        ["DPU pod pings all others", "web (d1)", "m, h1, h2, d2"],
        |s| s.pings_all("d1"),
    ),
    (
        [
            "host pod → 1 MiB from its DPU's pod",
            "web (h1)",
            "web (d1)",
        ],
        |s| s.fetches_a_mebibyte("h1", "d1"),
    ),
    (
        [
            "host pod → 1 MiB from the other host's",
            "web (h1)",
            "web (h2)",
        ],
        |s| s.fetches_a_mebibyte("h1", "h2"),
    ),
    (
        [
            "host → its own pod (kubelet's probes)",
            "host h1",
            "web (h1)",
        ],
        |s| s.node_reaches("h1", "h1"),
    ),
    (
        ["host pod → Service", "web (h1)", "web, ClusterIP"],
        |s| s.asks_service("h1", V4),
    ),
    (
        ["IPv6 host pod → Service", "web (h2)", "web, ClusterIP"],
        |s| s.asks_service("h2", V6),
    ),
    (["host → Service", "host h1", "web, ClusterIP"], |s| {
        s.node_asks_service("h1", V4)
    }),
    (
        ["host pod: DNS name → Service", "web (h2)", "web.pairs.svc"],
        |s| s.resolves("h2"),
    ),
    (["host pod → outside", "web (h1)", "outside host"], |s| {
        s.reaches_outside("h1")
    }),
];
const REBOOT: [&str; 3] = ["a DPU reboots under running pods", "web (h1)", "m, h2"];

/// Shows it; true when every row is good and nothing leaked.
///
/// # Errors
/// The lab or the scene does not come up, or does not go away.
pub(super) fn run(id: Option<u8>) -> Result<bool> {
    let lab = Lab::up(&LabConfig::dpu(id, 2))?;
    let scene = PairScene::deploy(&lab)?;
    lab.say("a web server on every node, all behind one Service: all Ready");
    println!();
    let cells = ROWS.iter().map(|(cells, _)| *cells).chain([REBOOT]);
    let mut table = Table::begin(cells);
    for (cells, look) in ROWS {
        let started = Instant::now();
        let mut tries = 0;
        let outcome = wait::until(cells[0], PATIENCE, || {
            tries += 1;
            look(&scene).map(Some)
        });
        let late = (tries > 1).then(|| started.elapsed());
        table.row(cells, &outcome.map(|seen| Seen { late, ..seen }));
    }
    let pairs = pairs::of(&lab);
    lab.say(
        "d1 goes off and on again: processes, links, /run and Open vSwitch's database are lost",
    );
    let outcome = reboot(&scene, &pairs[0]);
    table.row(REBOOT, &outcome);
    println!();
    scene.remove()?;
    match leaks::wait_for_none(&lab, RETURN) {
        Ok(()) => lab.say("every function is back on its host; no port, record or address is left of what was deleted"),
        Err(error) => table.failure("nothing left behind", &error),
    }
    let good = table.end();
    lab.say("taking the lab down");
    let (clock, id) = (lab.clock(), lab.site.id());
    drop(lab);
    clock.say(id, "down");
    Ok(good)
}

/// Hosts have none, and their DPUs have all: where nothing is found on either side nothing was looked at.
fn no_switch(scene: &PairScene<'_>) -> Result<Seen> {
    let mut of_dpus = Vec::new();
    for Pair { host, dpu, .. } in pairs::of(scene.lab()) {
        let found = pairs::switch_processes(scene.lab().node(&host))?;
        ensure!(found.is_empty(), "on host {host} there are {found:?}");
        of_dpus = pairs::switch_processes(scene.lab().node(&dpu))?;
        for name in ["ovs-vswitchd", "ovsdb-server", "ovn-controller"] {
            ensure!(
                of_dpus.iter().any(|found| found == name),
                "DPU {dpu} has no {name}: {of_dpus:?}"
            );
        }
    }
    of_dpus.dedup();
    Ok(Seen::new(
        format!("none; on their DPUs {}", of_dpus.join(", ")),
        0.0,
    ))
}

fn reboot(scene: &PairScene<'_>, pair: &Pair) -> Result<Seen> {
    let watch = Watch::begin(scene, pair)?;
    let reboot = scene.lab().site.reboot(&pair.dpu)?;
    let seen = watch.end(reboot.network, RETURN)?;
    let (network, _) = reboot.took();
    pair.wait(scene.lab(), RETURN)?;
    scene.ready()?;
    Ok(Seen::new(
        format!(
            "{:.1} s without an answer: Open vSwitch answered after {:.1} s, all pings {:.1} s later; same MAC, addresses, namespace",
            seen.gap.as_secs_f32(),
            network.as_secs_f32(),
            seen.after.as_secs_f32()
        ),
        seen.gap.as_secs_f64() * 1e3,
    ))
}
