//! Runs cases that share a lab, phase by phase, each reported by its name; takes the arguments that `cargo test -- …` takes.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, anyhow};
use e2e::cases::{self, Asked, Failures};
use e2e::{Lab, LabConfig, volumes};

use crate::logs;
use crate::world::World;

/// Cases that run side by side.
const ABREAST: usize = 4;

/// Does something in a namespace of its own; gives a few words on what it saw.
pub(crate) type Body = fn(&World<'_>) -> Result<String>;

/// One case.
pub(crate) struct Case {
    name: &'static str,
    body: Body,
}

pub(crate) const fn case(name: &'static str, body: Body) -> Case {
    Case { name, body }
}

/// Cases that do not disturb each other.
pub(crate) struct Phase(pub(crate) &'static [Case]);

/// Runs what was asked for and says what became of it.
pub(crate) fn run(phases: &[Phase]) -> ExitCode {
    let asked = Asked::of_process();
    let phases: Vec<Vec<&Case>> = phases
        .iter()
        .map(|phase| {
            let wants = |case: &&Case| asked.wants(case.name);
            phase.0.iter().filter(wants).collect::<Vec<_>>()
        })
        .filter(|cases| !cases.is_empty())
        .collect();
    let names: Vec<String> = phases
        .iter()
        .flatten()
        .map(|case| case.name.to_owned())
        .collect();
    asked.answer(&names, || {
        if phases.is_empty() {
            return Failures::new();
        }
        run_all(&phases).unwrap_or_else(|error| vec![("the lab".to_owned(), format!("{error:#}"))])
    })
}

fn run_all(phases: &[Vec<&Case>]) -> Result<Failures> {
    let config = LabConfig {
        storage: true,
        ..LabConfig::default()
    };
    let lab = &Lab::up(&config).context("the lab did not come up")?;
    volumes::wait_for_none(lab).context("before the first case")?;
    let mut failures = Failures::new();
    for cases in phases {
        let failed = run_phase(lab, cases);
        let broken = !failed.is_empty();
        failures.extend(failed);
        if let Err(error) = logs::search(lab) {
            failures.push(("the logs".to_owned(), format!("{error:#}")));
        }
        if broken {
            // What a failed case left would be held against the others.
            World::heal(lab);
        }
    }
    if let Err(error) = volumes::wait_for_none(lab) {
        failures.push(("the sweep at the end".to_owned(), format!("{error:#}")));
    }
    Ok(failures)
}

fn run_phase(lab: &Lab, cases: &[&Case]) -> Failures {
    let queue: Mutex<VecDeque<&Case>> = Mutex::new(cases.iter().copied().collect());
    let failures = Mutex::new(Failures::new());
    let next = || locked(&queue).pop_front();
    std::thread::scope(|scope| {
        for _ in 0..ABREAST.min(cases.len()) {
            scope.spawn(|| {
                while let Some(case) = next() {
                    if let Some(error) = cases::run(case.name, || run_case(lab, case)) {
                        locked(&failures).push((case.name.to_owned(), format!("{error:#}")));
                    }
                }
            });
        }
    });
    failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
}

fn run_case(lab: &Lab, case: &Case) -> Result<String> {
    let world = World::begin(lab, case.name)?;
    let outcome = cases::caught(|| (case.body)(&world))
        .map_err(|error| anyhow!("{error:#}\n{}", world.evidence()));
    let end = world.end().context("after the case");
    let note = outcome?;
    end?;
    Ok(note)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
