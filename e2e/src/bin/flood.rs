//! Program `flood`: see `e2e::flood`.

use std::process::ExitCode;

fn main() -> ExitCode {
    e2e::flood::serve()
}
