//! Runs cases that share labs, each reported by its name; takes the arguments that `cargo test -- …` takes.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
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

/// What the command line asked for.
struct Asked {
    filters: Vec<String>,
    exact: bool,
    list: bool,
}

impl Asked {
    fn of_process() -> Self {
        let (mut filters, mut exact, mut list) = (Vec::new(), false, false);
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--exact" => exact = true,
                "--list" => list = true,
                // Those of the standard harness that take a value.
                "--test-threads" | "--format" | "--color" | "-Z" | "--skip" => {
                    arguments.next();
                }
                option if option.starts_with('-') => {}
                filter => filters.push(filter.to_owned()),
            }
        }
        Self {
            filters,
            exact,
            list,
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.filters.is_empty()
            || self.filters.iter().any(|filter| {
                if self.exact {
                    name == filter
                } else {
                    name.contains(filter.as_str())
                }
            })
    }
}

/// Name of a failed case, and why.
type Failures = Vec<(String, String)>;

/// Runs what was asked for and says what became of it.
pub(crate) fn run(groups: &[Group]) -> ExitCode {
    let asked = Asked::of_process();
    let full_name = |group: &Group, case: &Case| format!("{}::{}", group.name, case.name);
    let wanted: Vec<(&Group, Vec<&Case>)> = groups
        .iter()
        .map(|group| {
            let cases = group.cases.iter();
            (
                group,
                cases
                    .filter(|case| asked.wants(&full_name(group, case)))
                    .collect(),
            )
        })
        .filter(|(_, cases): &(_, Vec<_>)| !cases.is_empty())
        .collect();
    if asked.list {
        for (group, cases) in &wanted {
            for case in cases {
                println!("{}: test", full_name(group, case));
            }
        }
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    let total: usize = wanted.iter().map(|(_, cases)| cases.len()).sum();
    println!("\nrunning {total} tests");
    let failures = Mutex::new(Failures::new());
    std::thread::scope(|scope| {
        for (group, cases) in &wanted {
            let failures = &failures;
            scope.spawn(move || {
                let caught = catch_unwind(AssertUnwindSafe(|| run_group(group, cases)));
                let failed = match caught {
                    Ok(Ok(failed)) => failed,
                    Ok(Err(error)) => vec![(group.name.to_owned(), format!("{error:#}"))],
                    Err(panic) => vec![(group.name.to_owned(), said(&*panic))],
                };
                let mut all = failures.lock().unwrap_or_else(|e| e.into_inner());
                all.extend(failed);
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(|e| e.into_inner());
    report(&failures, total, started.elapsed());
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn report(failures: &Failures, total: usize, took: Duration) {
    if !failures.is_empty() {
        println!("\nfailures:");
    }
    for (name, why) in failures {
        println!("\n---- {name} ----\n{why}");
    }
    println!(
        "\ntest result: {}. {total} asked for; {} failed; finished in {:.1}s\n",
        if failures.is_empty() { "ok" } else { "FAILED" },
        failures.len(),
        took.as_secs_f32()
    );
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
        let name = format!("{}::{}", group.name, case.name);
        let world = World::new(&lab, &scene, case.name);
        let started = Instant::now();
        let outcome = run_case(&world, case.body);
        let took = started.elapsed().as_secs_f32();
        let error = match outcome {
            Ok(note) => {
                println!("test {name} ... ok ({took:.1} s) {note}");
                continue;
            }
            Err(error) => error,
        };
        println!("test {name} ... FAILED ({took:.1} s)");
        failures.push((name, format!("{error:#}\n{}", world.evidence())));
        if let Err(error) = world.heal() {
            failures.extend(rest.by_ref().map(|case| {
                let why = format!("not run: the lab could not be put right: {error:#}");
                (format!("{}::{}", group.name, case.name), why)
            }));
        }
    }
    Ok(failures)
}

fn run_case(world: &World<'_>, body: Body) -> Result<String> {
    world.begin()?;
    let note = catch_unwind(AssertUnwindSafe(|| body(world)))
        .unwrap_or_else(|panic| Err(anyhow!("panicked: {}", said(&*panic))))?;
    world.end()?;
    leaks::wait_for_none(world.lab, SWEEP).context("after the case")?;
    Ok(note)
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without words".to_owned())
}
