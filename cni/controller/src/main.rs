//! `cni-controller`: see the library.

use cni_controller::Config;
use std::process::ExitCode;

fn main() -> ExitCode {
    let config: Config = match daemon::args::parse() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let common = config.common().clone();
    daemon::run::run("cni-controller", &common, |stop| {
        cni_controller::run(config, stop)
    })
}
