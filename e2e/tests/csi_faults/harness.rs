//! Runs cases that share chains, each reported by its name; takes the arguments that `cargo test -- …` takes.

use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Result;
use e2e::cases::{self, Asked, Failures};

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
        failures.into_inner().unwrap()
    })
}

fn full_name(group: &Group, case: &Case) -> String {
    format!("{}::{}", group.name, case.name)
}

fn run_group(group: &Group, cases: &[&Case]) -> Failures {
    let mut failures = Failures::new();
    let mut chain = None;
    for case in cases {
        let name = full_name(group, case);
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
        let failed = cases::run(&name, || {
            let note = (case.body)(&mut world)?;
            world.sweep()?;
            Ok(note)
        });
        match failed {
            None => chain = Some(world),
            Some(error) => failures.push((name, format!("{error:#}\n{}", world.evidence()))),
        }
    }
    failures
}
