//! Runs programs and times them, where they are to run: in a node's namespaces.
//!
//! A container runtime forks and execs a plugin inside the node; `nsenter` in front of each call would be measured with
//! it. So one process, program `stopwatch`, goes in once and runs what it is told: a job per line on its standard input,
//! a lap per line on its standard output, both JSON.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::images;
use crate::node::Node;

/// One program to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) input: String,
}

/// How it went.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Lap {
    /// From before the fork until the program has ended and all that it said was read.
    nanoseconds: u64,
    success: bool,
    said: String,
    complained: String,
}

/// The process that runs the jobs.
pub(super) struct Stopwatch {
    child: Child,
    jobs: Option<ChildStdin>,
    laps: BufReader<ChildStdout>,
}

impl Stopwatch {
    /// On this machine.
    pub(super) fn here() -> Result<Self> {
        Self::start(Command::new(images::program("stopwatch")?))
    }

    /// Inside a node.
    pub(super) fn inside(node: &Node) -> Result<Self> {
        Self::start(node.command(&images::program("stopwatch")?))
    }

    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the stopwatch")?;
        let jobs = child.stdin.take();
        let laps = child
            .stdout
            .take()
            .context("the stopwatch's standard output was asked for")?;
        Ok(Self {
            child,
            jobs,
            laps: BufReader::new(laps),
        })
    }

    /// Runs a program to its end; its time and what it printed.
    ///
    /// # Errors
    /// It cannot be started, or fails: the message is what it said.
    pub(super) fn time(&mut self, job: &Job) -> Result<(Duration, String)> {
        let mut line = serde_json::to_vec(job)?;
        line.push(b'\n');
        let jobs = self
            .jobs
            .as_mut()
            .context("the stopwatch has been stopped")?;
        jobs.write_all(&line).context("the stopwatch is gone")?;
        let mut answer = String::new();
        self.laps.read_line(&mut answer)?;
        let lap: Lap = serde_json::from_str(&answer).context("the stopwatch is gone")?;
        if !lap.success {
            bail!(
                "`{}` failed: {}{}",
                job.argv.join(" "),
                lap.said,
                lap.complained
            );
        }
        Ok((Duration::from_nanos(lap.nanoseconds), lap.said))
    }

    /// Runs a program whose time is of no interest.
    ///
    /// # Errors
    /// As [`Self::time`].
    pub(super) fn run(&mut self, argv: &[&str], input: &str) -> Result<String> {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        let job = Job {
            argv,
            input: input.to_owned(),
            ..Job::default()
        };
        self.time(&job).map(|(_, said)| said)
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        // The end of its input is its end.
        drop(self.jobs.take());
        let _ = self.child.wait();
    }
}

/// The whole program `stopwatch`.
pub fn serve() -> ExitCode {
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let lap = line
            .context("standard input")
            .and_then(|line| lap(&serde_json::from_str(&line)?));
        let lap = lap.unwrap_or_else(|error| Lap {
            nanoseconds: 0,
            success: false,
            said: String::new(),
            complained: format!("{error:#}"),
        });
        let written = serde_json::to_string(&lap).map_err(std::io::Error::from);
        if written
            .and_then(|text| writeln!(output, "{text}").and_then(|()| output.flush()))
            .is_err()
        {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn lap(job: &Job) -> Result<Lap> {
    let (program, arguments) = job.argv.split_first().context("an empty command line")?;
    let mut command = Command::new(program);
    command.args(arguments).envs(job.env.iter().cloned());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let begun = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    if let Some(mut input) = child.stdin.take() {
        // A program need not read what it does not want.
        let _ = input.write_all(job.input.as_bytes());
    }
    let output = child.wait_with_output()?;
    let elapsed = begun.elapsed();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Lap {
        nanoseconds: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
        success: output.status.success(),
        said: text(output.stdout),
        complained: text(output.stderr),
    })
}
