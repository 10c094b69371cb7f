//! The frame around a daemon's async function: runtime, log, signals, exit code.

use std::future::Future;
use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args::Common;
use crate::{failpoints, logging};

/// The most worker threads: daemons on hosts with hundreds of CPUs must not take a stack and a heap arena for each.
const MAX_WORKERS: usize = 4;

/// Runs `body` until it returns. The token it gets is cancelled by the first SIGTERM or SIGINT; `body` then finishes
/// what it is doing and returns. A second signal ends the program at once, with 130.
///
/// An error is logged here, once, with its causes; the exit code is then 1.
///
/// With the feature `failpoints`, `FAILPOINTS` and `OUTBOARD_KILL_AT` say where a test holds or kills the program.
pub fn run<Body, Done>(program: &'static str, args: &Common, body: Body) -> ExitCode
where
    Body: FnOnce(CancellationToken) -> Done,
    Done: Future<Output = anyhow::Result<()>>,
{
    let _failpoints = match failpoints::arm() {
        Ok(armed) => armed,
        Err(error) => return failed_early(program, &error),
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers.min(MAX_WORKERS))
        .enable_all()
        .build();
    let runtime = match runtime.context("starting the async runtime") {
        Ok(runtime) => runtime,
        Err(error) => return failed_early(program, &error),
    };
    let code = runtime.block_on(async {
        let _logging = match logging::init(program, args) {
            Ok(logging) => logging,
            Err(error) => return failed_early(program, &error),
        };
        let signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => return failed_early(program, &error),
        };
        let shutdown = CancellationToken::new();
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "{program} starts");
        tokio::select! {
            done = body(shutdown.clone()) => match done {
                Ok(()) => {
                    tracing::info!("{program} ends");
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    tracing::error!("{program} ends: {error:#}");
                    ExitCode::FAILURE
                }
            },
            () = signals.cancel(shutdown) => {
                tracing::warn!("{program} ends at once: a second signal came");
                ExitCode::from(130)
            }
        }
    });
    // Blocking work that is stuck in the kernel must not keep a finished program.
    runtime.shutdown_background();
    code
}

fn failed_early(program: &str, error: &anyhow::Error) -> ExitCode {
    eprintln!("{program}: {error:#}");
    ExitCode::FAILURE
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("listening for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listening for SIGINT")?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Cancels the token at the first signal, returns at the second.
    async fn cancel(mut self, shutdown: CancellationToken) {
        self.next().await;
        tracing::info!("told to end");
        shutdown.cancel();
        self.next().await;
    }
}
