//! Program `stopwatch`: see `e2e::stopwatch`.

use std::process::ExitCode;

fn main() -> ExitCode {
    e2e::stopwatch::serve()
}
