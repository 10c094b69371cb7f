//! `outboard-lab demo`: a lab from nothing, the table of what works on it, the times of one ADD, and nothing left.

mod stages;
mod table;

use std::time::Duration;

use anyhow::Result;

use crate::checks::{self, NAMESPACE, Scene};
use crate::lab::{Lab, LabConfig};
use crate::leaks;
use table::Table;

/// Shows it all; true when every row of the table is good and nothing leaked.
///
/// # Errors
/// The lab or the scene does not come up, or does not go away.
pub(crate) fn run(config: &LabConfig) -> Result<bool> {
    let lab = Lab::up(config)?;
    let scene = Scene::deploy(&lab)?;
    lab.say("two web servers behind a Service, clients on both nodes: all Ready");
    println!();
    let all = checks::all();
    let mut table = Table::begin(&all);
    for check in &all {
        let outcome = check.run(&scene);
        table.row(check, &outcome);
    }
    println!();
    match stages::of_one_add(&lab, NAMESPACE) {
        Ok(line) => println!("{line}"),
        Err(error) => table.failure("stage times of one ADD", &error),
    }
    println!();
    lab.say("the table is complete; deleting what it was about");
    scene.remove()?;
    if let Err(error) = leaks::wait_for_none(&lab, Duration::from_secs(30)) {
        table.failure("nothing left behind", &error);
    } else {
        lab.say("no port, link, record or address is left of the deleted pods");
    }
    let good = table.end();
    lab.say("taking the lab down");
    let clock = lab.clock();
    let id = lab.site.id();
    drop(lab);
    clock.say(id, "down");
    Ok(good)
}
