//! Runs cases that share a lab, each reported by its name; takes the arguments that `cargo test -- …` takes.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::cases::{self, Asked, Failures};
use e2e::pairs::PairScene;
use e2e::{Lab, LabConfig, leaks, until};

use crate::world::World;

/// What was deleted is gone from everywhere after this.
const SWEEP: Duration = Duration::from_secs(60);

/// Breaks something, in a namespace of its own; gives a few words on what it saw.
pub(crate) type Body = fn(&World<'_>) -> Result<String>;

/// One case.
pub(crate) struct Case {
    name: &'static str,
    body: Body,
}

pub(crate) const fn case(name: &'static str, body: Body) -> Case {
    Case { name, body }
}

/// Runs what was asked for and says what became of it.
pub(crate) fn run(cases: &[Case]) -> ExitCode {
    let asked = Asked::of_process();
    let wanted: Vec<&Case> = cases.iter().filter(|case| asked.wants(case.name)).collect();
    let names: Vec<String> = wanted.iter().map(|case| case.name.to_owned()).collect();
    asked.answer(&names, || {
        if wanted.is_empty() {
            return Failures::new();
        }
        cases::caught(|| run_all(&wanted))
            .unwrap_or_else(|error| vec![("the lab".to_owned(), format!("{error:#}"))])
    })
}

fn run_all(cases: &[&Case]) -> Result<Failures> {
    let lab = Lab::up(&LabConfig::dpu(None, 2)).context("the lab did not come up")?;
    let mut scene = PairScene::deploy(&lab).context("the standing pods did not start")?;
    leaks::wait_for_none(&lab, SWEEP).context("before the first case")?;
    let mut failures = Failures::new();
    let mut rest = cases.iter();
    while let Some(case) = rest.next() {
        // A case may have rebooted a node: its pods are others now.
        let mut renewed = Ok(());
        let _ = until("the standing pods", SWEEP, || {
            renewed = scene.renew();
            Ok(renewed.is_ok().then_some(()))
        });
        renewed?;
        let world = World::new(&scene, case.name);
        let Some(error) = cases::run(case.name, || run_case(&world, case.body)) else {
            continue;
        };
        failures.push((
            case.name.to_owned(),
            format!("{error:#}\n{}", world.evidence()),
        ));
        if let Err(error) = world.heal() {
            failures.extend(rest.by_ref().map(|case| {
                let why = format!("not run: the lab could not be put right: {error:#}");
                (case.name.to_owned(), why)
            }));
        }
    }
    if failures.is_empty() {
        scene.remove()?;
        leaks::wait_for_none(&lab, SWEEP).context("when all was deleted")?;
    }
    Ok(failures)
}

fn run_case(world: &World<'_>, body: Body) -> Result<String> {
    world.begin()?;
    let note = body(world)?;
    world.end()?;
    leaks::wait_for_none(world.lab, SWEEP).context("after the case")?;
    Ok(note)
}
