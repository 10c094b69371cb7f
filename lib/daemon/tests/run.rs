//! A program as its `main` is written, run for real: signals, exit codes, what is printed.
//!
//! The program runs itself as the daemon, so that signals meet a process and not the test runner.
#![expect(
    clippy::unwrap_used,
    reason = "a test, which clippy can't see: it has no harness"
)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitCode, Stdio};

use clap::Parser;
use daemon::args::{self, Common};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[derive(Parser)]
#[command(version)]
struct Config {
    #[command(flatten)]
    common: Common,
    #[arg(long)]
    behave: String,
}

fn main() -> ExitCode {
    if std::env::var_os("AS_DAEMON").is_some() {
        return as_daemon();
    }
    if std::env::args().any(|argument| argument == "--list") {
        println!("the_frame_of_a_program: test");
        return ExitCode::SUCCESS;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (code, log) = Daemon::start(&["--behave", "stop"]).told(&[signal]);
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("cni-test ends"), "{log}");
    }
    let (code, log) = Daemon::start(&["--behave", "fail", "--log-format", "json"]).told(&[]);
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains(r#""message":"cni-test ends: opening x: no x""#),
        "{log}"
    );
    // It ignores the first signal.
    let (code, log) =
        Daemon::start(&["--behave", "hang"]).told(&[Signal::SIGTERM, Signal::SIGTERM]);
    assert_eq!(code, Some(130), "{log}");
    let (code, log) = Daemon::start(&["--behave", "stop", "--log", "a=b=c"]).told(&[]);
    assert_eq!(code, Some(64), "{log}");
    assert!(log.contains("--log"), "{log}");
    let (code, _) = Daemon::start(&["--version"]).told(&[]);
    assert_eq!(code, Some(0));
    println!("test the_frame_of_a_program ... ok");
    ExitCode::SUCCESS
}

fn as_daemon() -> ExitCode {
    let config = match args::parse::<Config>() {
        Ok(config) => config,
        Err(code) => return code,
    };
    daemon::run::run("cni-test", &config.common, async |shutdown| {
        tracing::info!("up");
        match config.behave.as_str() {
            "stop" => shutdown.cancelled().await,
            "hang" => std::future::pending().await,
            _ => return Err(anyhow::anyhow!("no x").context("opening x")),
        }
        Ok(())
    })
}

struct Daemon {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Daemon {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .env("AS_DAEMON", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Waits until it is up, sends the signals one after the other as they are heard, and returns how it ended.
    fn told(mut self, signals: &[Signal]) -> (Option<i32>, String) {
        let mut log = String::new();
        let mut until = "up";
        for &signal in signals {
            while !log.lines().last().is_some_and(|line| line.ends_with(until)) {
                assert_ne!(self.log.read_line(&mut log).unwrap(), 0, "{log}");
            }
            let pid = Pid::from_raw(self.child.id().try_into().unwrap());
            kill(pid, signal).unwrap();
            until = "told to end";
        }
        self.log.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}
