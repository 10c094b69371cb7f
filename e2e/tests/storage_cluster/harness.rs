//! Runs cases that share a lab, phase by phase, each reported by its name; takes the arguments that `cargo test -- …` takes.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
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

/// Name of a failed case, and why.
type Failures = Vec<(String, String)>;

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
        let fits = |filter: &String| {
            if self.exact {
                name == filter
            } else {
                name.contains(filter.as_str())
            }
        };
        self.filters.is_empty() || self.filters.iter().any(fits)
    }
}

/// Runs what was asked for and says what became of it.
pub(crate) fn run(phases: &[Phase]) -> ExitCode {
    let asked = Asked::of_process();
    let phases: Vec<Vec<&Case>> = phases
        .iter()
        .map(|phase| {
            phase
                .0
                .iter()
                .filter(|case| asked.wants(case.name))
                .collect::<Vec<_>>()
        })
        .filter(|cases| !cases.is_empty())
        .collect();
    if asked.list {
        for case in phases.iter().flatten() {
            println!("{}: test", case.name);
        }
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    let total: usize = phases.iter().map(Vec::len).sum();
    println!("\nrunning {total} tests");
    let failures = if phases.is_empty() {
        Failures::new()
    } else {
        run_all(&phases).unwrap_or_else(|error| vec![("the lab".to_owned(), format!("{error:#}"))])
    };
    if !failures.is_empty() {
        println!("\nfailures:");
    }
    for (name, why) in &failures {
        println!("\n---- {name} ----\n{why}");
    }
    println!(
        "\ntest result: {}. {total} asked for; {} failed; finished in {:.1}s\n",
        if failures.is_empty() { "ok" } else { "FAILED" },
        failures.len(),
        started.elapsed().as_secs_f32()
    );
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
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
                    let started = Instant::now();
                    let outcome = run_case(lab, case);
                    let took = started.elapsed().as_secs_f32();
                    match outcome {
                        Ok(note) => println!("test {} ... ok ({took:.1} s) {note}", case.name),
                        Err(error) => {
                            println!("test {} ... FAILED ({took:.1} s)\n{error:#}\n", case.name);
                            locked(&failures).push((case.name.to_owned(), format!("{error:#}")));
                        }
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
    let outcome = catch_unwind(AssertUnwindSafe(|| (case.body)(&world)))
        .unwrap_or_else(|panic| Err(anyhow!("panicked: {}", said(&*panic))))
        .map_err(|error| anyhow!("{error:#}\n{}", world.evidence()));
    let end = world.end().context("after the case");
    let note = outcome?;
    end?;
    Ok(note)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without words".to_owned())
}
