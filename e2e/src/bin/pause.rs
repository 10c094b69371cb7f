//! Program `pause`: holds a pod's namespaces until it is told to go, and reaps what is handed to it as process 1.

use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

fn main() -> ExitCode {
    let wanted: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD]
        .into_iter()
        .collect();
    // A blocked signal stays pending until `wait` takes it: none is lost, none kills.
    if wanted.thread_block().is_err() {
        return ExitCode::FAILURE;
    }
    loop {
        match wanted.wait() {
            Ok(Signal::SIGCHLD) => {
                while waitpid(None, Some(WaitPidFlag::WNOHANG))
                    .is_ok_and(|s| s != WaitStatus::StillAlive)
                {}
            }
            Ok(_) => return ExitCode::SUCCESS,
            Err(_) => return ExitCode::FAILURE,
        }
    }
}
