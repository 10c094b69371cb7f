//! Runs cases that share chains, each reported by its name; takes the arguments that `cargo test -- …` takes.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Result, anyhow};

use crate::world::World;

/// Breaks something; gives a few words on what it saw.
pub(crate) type Body = fn(&mut World) -> Result<String>;

/// One case.
pub(crate) struct Case {
    name: &'static str,
    body: Body,
}

pub(crate) const fn case(name: &'static str, body: Body) -> Case {
    Case { name, body }
}

/// What a chain stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Unix sockets; images in a directory.
    Plain,
    /// NBD over TCP with TLS.
    Tls,
    /// Images on a small file system of their own.
    Small,
}

/// Cases that share a chain.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) ground: Ground,
    pub(crate) cases: &'static [Case],
}

/// Groups at a time: one for each of a small machine's processors.
const AT_ONCE: usize = 2;

/// Name of a failed case, and why.
type Failures = Vec<(String, String)>;

/// Runs what was asked for and says what became of it.
pub(crate) fn run(groups: &[Group]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<_> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let wanted: Vec<(&Group, Vec<&Case>)> = groups
        .iter()
        .map(|group| {
            let wants = |case: &&Case| {
                let name = format!("{}::{}", group.name, case.name);
                filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()))
            };
            (group, group.cases.iter().filter(wants).collect())
        })
        .filter(|(_, cases): &(_, Vec<_>)| !cases.is_empty())
        .collect();
    if arguments.iter().any(|argument| argument == "--list") {
        for (group, cases) in &wanted {
            for case in cases {
                println!("{}::{}: test", group.name, case.name);
            }
        }
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    let total: usize = wanted.iter().map(|(_, cases)| cases.len()).sum();
    println!("\nrunning {total} tests");
    let queue = Mutex::new(wanted.iter());
    let failures = Mutex::new(Failures::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().next();
                    let Some((group, cases)) = next else { return };
                    let failed = run_group(group, cases);
                    failures.lock().unwrap().extend(failed);
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    if !failures.is_empty() {
        println!("\nfailures:");
    }
    for (name, why) in &failures {
        println!("\n---- {name} ----\n{why}");
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; finished in {:.1}s\n",
        if failures.is_empty() { "ok" } else { "FAILED" },
        total - failures.len(),
        failures.len(),
        started.elapsed().as_secs_f32()
    );
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run_group(group: &Group, cases: &[&Case]) -> Failures {
    let mut failures = Failures::new();
    let mut chain = None;
    for case in cases {
        let name = format!("{}::{}", group.name, case.name);
        let started = Instant::now();
        // After a failure nobody knows what the chain is.
        let world = match chain.take() {
            Some(world) => Ok(world),
            None => World::new(group.ground),
        };
        let mut world = match world {
            Ok(world) => world,
            Err(error) => {
                failures.push((name, format!("the chain did not start: {error:#}")));
                continue;
            }
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let note = (case.body)(&mut world)?;
            world.sweep()?;
            Ok(note)
        }));
        let outcome = outcome.unwrap_or_else(|panic| Err(anyhow!("panicked: {}", said(&*panic))));
        let took = started.elapsed().as_secs_f32();
        match outcome {
            Ok(note) => {
                println!("test {name} ... ok ({took:.1} s) {note}");
                chain = Some(world);
            }
            Err(error) => {
                println!("test {name} ... FAILED ({took:.1} s)");
                failures.push((name, format!("{error:#}\n{}", world.evidence())));
            }
        }
    }
    failures
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without words".to_owned())
}
