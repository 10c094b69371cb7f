//! The program `vhostuser-shim`: flags, log lines, one thread.

use std::process::ExitCode;

use shim::{config, run};

fn main() -> ExitCode {
    let config = match config::parse() {
        Ok(config) => config,
        Err(code) => return code,
    };
    config.log_lines();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run::run(config)),
        Err(error) => Err(anyhow::Error::new(error).context("start the runtime")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
