//! `outboard-lab demo`: a lab from nothing, the table of what works on it, the times of one ADD and of one attach, and
//! nothing left; then the same of a lab with hosts behind DPUs, one of which reboots.

mod attach;
mod bars;
mod pairs;
mod stages;
mod table;

use std::time::Duration;

use anyhow::Result;

use crate::checks::{self, NAMESPACE, Scene, VolumeScene};
use crate::lab::{Lab, LabConfig};
use crate::{leaks, volumes};
use table::Table;

/// Shows it all; true when every row of both tables is good and nothing leaked.
///
/// # Errors
/// A lab or its scene does not come up, or does not go away.
pub(crate) fn run(config: &LabConfig) -> Result<bool> {
    let plain = of_plain_nodes(config)?;
    println!();
    // One after the other: there are only so many cores, and times are shown.
    let pairs = pairs::run(config.site.id)?;
    Ok(plain && pairs)
}

fn of_plain_nodes(config: &LabConfig) -> Result<bool> {
    let lab = Lab::up(config)?;
    let scene = Scene::deploy(&lab)?;
    lab.say("two web servers behind a Service, clients on both nodes: all Ready");
    println!();
    let (network, storage) = (checks::all(), checks::of_volumes());
    let cells = network
        .iter()
        .map(|check| [check.what, check.from, check.to]);
    let more = storage
        .iter()
        .map(|check| [check.what, check.from, check.to]);
    let mut table = Table::begin(cells.chain(more));
    for check in &network {
        let outcome = check.run(&scene);
        table.row([check.what, check.from, check.to], &outcome);
    }
    // Not before: disks that come up take their time, and the network's is shown above.
    let mut disks = VolumeScene::deploy(&lab)?;
    for check in &storage {
        let outcome = check.run(&mut disks);
        table.row([check.what, check.from, check.to], &outcome);
    }
    println!();
    table.line(
        "stage times of one ADD",
        stages::of_one_add(&lab, NAMESPACE),
    );
    let attach = attach::of_one(&lab, NAMESPACE);
    table.line("stage times of one attach", attach);
    println!();
    lab.say("the table is complete; deleting what it was about");
    if let Err(error) = disks.remove() {
        table.failure("volumes, snapshots and attachments deleted", &error);
    }
    scene.remove()?;
    let pods = leaks::wait_for_none(&lab, Duration::from_secs(30));
    match pods.and_then(|()| volumes::wait_for_none(&lab)) {
        Ok(()) => lab.say(
            "no port, link, record, address, image, export, daemon, loop device or mount is left of what was deleted",
        ),
        Err(error) => table.failure("nothing left behind", &error),
    }
    let good = table.end();
    lab.say("taking the lab down");
    let clock = lab.clock();
    let id = lab.site.id();
    drop(lab);
    clock.say(id, "down");
    Ok(good)
}
