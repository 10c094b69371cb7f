//! The process on the other side (QAPI: control.json, misc.json, run-state.json).

use serde::Deserialize;

use super::{Done, command};

command! {
    /// Which QEMU this is.
    QueryVersion = "query-version" -> Version {}

    /// Which commands there are: qemu-storage-daemon has about half of QEMU's.
    QueryCommands = "query-commands" -> Vec<CommandInfo> {}

    /// Whether a virtual machine runs. QEMU only.
    QueryStatus = "query-status" -> Status {}

    /// Ends the process in an orderly way: exports are closed, images flushed. It is acknowledged before it is done:
    /// await the end of the process.
    Quit = "quit" -> Done {}
}

/// A version.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Version {
    /// The release.
    pub qemu: Release,
    /// The distribution's package.
    pub package: String,
}

/// A release: `major.minor.micro`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Release {
    /// 10 of 10.0.2.
    pub major: u32,
    /// 0 of 10.0.2.
    pub minor: u32,
    /// 2 of 10.0.2.
    pub micro: u32,
}

/// One entry of [`QueryCommands`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CommandInfo {
    /// The command's name.
    pub name: String,
}

/// The state of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// Whether its CPUs run.
    pub running: bool,
    /// `running`, `paused`, `io-error`, …
    pub status: String,
}
