//! csi-controller over its socket, with the real `local` backend.

#![expect(
    clippy::unwrap_used,
    reason = "a test, which clippy can't see: it has no harness"
)]

mod bad_input;
mod dpu;
mod faults;
mod objects;
mod publishing;
mod sanity;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = world::as_engine() {
        return code;
    }
    let tests = [
        bad_input::TESTS,
        objects::TESTS,
        publishing::TESTS,
        faults::TESTS,
        sanity::TESTS,
    ];
    world::main(&tests.concat());
    ExitCode::SUCCESS
}
