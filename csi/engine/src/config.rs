//! The flags of `outboard-engine`, validated.

use std::path::PathBuf;

use daemon::args::absolute;

/// Keeps one qemu-storage-daemon per volume, whatever happens to other programs.
#[derive(Debug, clap::Parser)]
#[command(name = "outboard-engine", version)]
pub(crate) struct Config {
    /// What to run.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What outboard-engine can run.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Serve the engine's socket and keep the daemons. They stay when it ends.
    Run(Box<Run>),
    /// Become a storage daemon (the engine starts this by itself).
    #[command(hide = true)]
    Launch(Launch),
}

/// Flags of `outboard-engine run`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Run {
    /// Flags of every daemon.
    #[command(flatten)]
    pub(crate) common: daemon::args::Common,
    /// Directory of the recipes and of the daemons' sockets and logs; it must outlive the engine. It is made with mode 0700.
    #[arg(long, default_value = "/var/lib/outboard/engine", value_parser = absolute, env = "OUTBOARD_ENGINE_STATE")]
    pub(crate) state: PathBuf,
    /// Where clients find the engine. Its directory is the engine's alone: it is made with mode 0700.
    #[arg(long, default_value = crate::SOCKET, value_parser = absolute, env = "OUTBOARD_ENGINE_SOCKET")]
    pub(crate) socket: PathBuf,
    /// The qemu-storage-daemon, 8.0 or newer: a path, or a name to be found in PATH.
    #[arg(
        long,
        default_value = "qemu-storage-daemon",
        env = "OUTBOARD_STORAGE_DAEMON"
    )]
    pub(crate) storage_daemon: PathBuf,
    /// Cgroup that the daemons are moved to, so that the end of the engine's own container does not take them along; an
    /// empty name leaves them where they are.
    #[arg(
        long,
        default_value = "outboard-engine",
        env = "OUTBOARD_ENGINE_CGROUP"
    )]
    pub(crate) cgroup: String,
}

/// Flags of `outboard-engine launch`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Launch {
    /// The daemon's directory.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// The qemu-storage-daemon.
    #[arg(long)]
    pub(crate) storage_daemon: PathBuf,
    /// The cgroup; empty for none.
    #[arg(long, default_value = "")]
    pub(crate) cgroup: String,
}
