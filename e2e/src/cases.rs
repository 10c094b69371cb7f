//! What tests have in common that run their cases themselves, because cases share a lab: the arguments of `cargo test -- …`, a case
//! that panics, and the lines of the result.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Error, Result, anyhow};

/// Name of a failed case, and why.
pub type Failures = Vec<(String, String)>;

/// What the command line asked for.
#[derive(Debug)]
pub struct Asked {
    filters: Vec<String>,
    exact: bool,
    list: bool,
}

impl Asked {
    /// Of this process's arguments: `--exact`, `--list`, and parts of names.
    pub fn of_process() -> Self {
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

    /// Whether the case of this name is to run.
    pub fn wants(&self, name: &str) -> bool {
        let fits = |filter: &String| {
            if self.exact {
                name == filter
            } else {
                name.contains(filter.as_str())
            }
        };
        self.filters.is_empty() || self.filters.iter().any(fits)
    }

    /// Runs the cases of these names by `run` and says what became of them; with `--list` it only names them.
    pub fn answer(&self, names: &[String], run: impl FnOnce() -> Failures) -> ExitCode {
        if self.list {
            for name in names {
                println!("{name}: test");
            }
            return ExitCode::SUCCESS;
        }
        let started = Instant::now();
        println!("\nrunning {} tests", names.len());
        let failures = run();
        if !failures.is_empty() {
            println!("\nfailures:");
        }
        for (name, why) in &failures {
            println!("\n---- {name} ----\n{why}");
        }
        println!(
            "\ntest result: {}. {} asked for; {} failed; finished in {:.1}s\n",
            if failures.is_empty() { "ok" } else { "FAILED" },
            names.len(),
            failures.len(),
            started.elapsed().as_secs_f32()
        );
        if failures.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// Runs a case; a panic is an error. Says how it ended, and gives the error.
pub fn run(name: &str, body: impl FnOnce() -> Result<String>) -> Option<Error> {
    let started = Instant::now();
    let outcome = caught(body);
    let took = started.elapsed().as_secs_f32();
    match outcome {
        Ok(note) => {
            println!("test {name} ... ok ({took:.1} s) {note}");
            None
        }
        Err(error) => {
            println!("test {name} ... FAILED ({took:.1} s)\n{error:#}\n");
            Some(error)
        }
    }
}

/// Does something; a panic is an error.
///
/// # Errors
/// Its own, or what it said when it panicked.
pub fn caught<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|panic| Err(anyhow!("panicked: {}", said(&*panic))))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without words".to_owned())
}
