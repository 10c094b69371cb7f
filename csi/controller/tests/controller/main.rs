//! csi-controller over its socket, with the real `local` backend.

#![expect(
    clippy::unwrap_used,
    reason = "a test, which clippy can't see: it has no harness"
)]

#[path = "../../../../lib/api/tests/admission/apiserver.rs"]
mod apiserver;
mod bad_input;
mod dpu;
mod faults;
mod kubernetes;
mod objects;
#[path = "../../../../cni/controller/tests/kubernetes/proxy.rs"]
#[allow(dead_code, reason = "cni-controller's tests use all of it")]
mod proxy;
mod publishing;
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
        kubernetes::TESTS,
    ];
    world::main(&tests.concat());
    ExitCode::SUCCESS
}
