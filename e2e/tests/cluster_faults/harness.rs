//! Runs cases that share labs, each reported by its name; takes the arguments that `cargo test -- …` takes.

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::cases::{self, Asked, Failures};
use e2e::checks::Scene;
use e2e::{CentralConfig, Lab, LabConfig, leaks};

use crate::world::World;

/// Pods that were deleted are gone from everywhere after this.
const SWEEP: Duration = Duration::from_secs(60);

/// Breaks something in a namespace of its own; gives a few words on what it saw.
pub(crate) type Body = fn(&World<'_>) -> Result<String>;

/// One case.
pub(crate) struct Case {
    name: &'static str,
    body: Body,
}

pub(crate) const fn case(name: &'static str, body: Body) -> Case {
    Case { name, body }
}

/// Cases that share a lab.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) nb_servers: u8,
    pub(crate) cases: &'static [Case],
}

/// Runs what was asked for and says what became of it.
pub(crate) fn run(groups: &[Group]) -> ExitCode {
    let asked = Asked::of_process();
    let wanted: Vec<(&Group, Vec<&Case>)> = groups
        .iter()
        .map(|group| {
            let wants = |case: &&Case| asked.wants(&full_name(group, case));
            (group, group.cases.iter().filter(wants).collect())
        })
        .filter(|(_, cases): &(_, Vec<_>)| !cases.is_empty())
        .collect();
    let names: Vec<String> = wanted
        .iter()
        .flat_map(|(group, cases)| cases.iter().map(|case| full_name(group, case)))
        .collect();
    asked.answer(&names, || {
        let failures = Mutex::new(Failures::new());
        std::thread::scope(|scope| {
            for (group, cases) in &wanted {
                let failures = &failures;
                scope.spawn(move || {
                    let failed =
                        cases::caught(|| run_group(group, cases)).unwrap_or_else(|error| {
                            vec![(group.name.to_owned(), format!("{error:#}"))]
                        });
                    let mut all = failures.lock().unwrap_or_else(|e| e.into_inner());
                    all.extend(failed);
                });
            }
        });
        failures.into_inner().unwrap_or_else(|e| e.into_inner())
    })
}

fn full_name(group: &Group, case: &Case) -> String {
    format!("{}::{}", group.name, case.name)
}

fn run_group(group: &Group, cases: &[&Case]) -> Result<Failures> {
    let config = LabConfig {
        central: CentralConfig {
            nb_servers: group.nb_servers,
        },
        ..LabConfig::default()
    };
    let lab = Lab::up(&config).context("the group's lab did not come up")?;
    let scene = Scene::deploy(&lab).context("the group's standing pods did not start")?;
    leaks::wait_for_none(&lab, SWEEP)?;
    let mut failures = Failures::new();
    let mut rest = cases.iter();
    while let Some(case) = rest.next() {
        let name = full_name(group, case);
        let world = World::new(&lab, &scene, case.name);
        let Some(error) = cases::run(&name, || run_case(&world, case.body)) else {
            continue;
        };
        failures.push((name, format!("{error:#}\n{}", world.evidence())));
        if let Err(error) = world.heal() {
            failures.extend(rest.by_ref().map(|case| {
                let why = format!("not run: the lab could not be put right: {error:#}");
                (full_name(group, case), why)
            }));
        }
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
