//! `outboard`: the CNI plugin that a container runtime executes, and its own installer.
//!
//! Run with `CNI_COMMAND` set it is the plugin: environment and standard input become one request to cni-node, and the
//! answer goes to standard output ([`plugin`], [`dial`]). Run with arguments it installs itself ([`cli`], [`install`]).
//! It keeps no state, starts no runtime and knows nothing of Kubernetes, OVS or OVN.

mod cli;
mod dial;
mod install;
mod plugin;
mod replace;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if arguments.is_empty() {
        plugin::run()
    } else {
        cli::run(&arguments)
    }
}
