//! Program `outboard-lab`: see `e2e::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    e2e::cli::run()
}
