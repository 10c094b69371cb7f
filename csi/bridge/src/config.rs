//! The flags of `opi-bridge`, validated.

use std::net::SocketAddr;
use std::path::PathBuf;

use daemon::args::absolute;
use qemu::commands::Aio;

/// OPI and its complement in front of a card.
#[derive(Debug, clap::Parser)]
#[command(name = "opi-bridge", version)]
pub(crate) struct Config {
    /// What to run.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What opi-bridge can run.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Serve the linux card: qemu-storage-daemons under outboard-engine. What is exposed stays when it ends.
    Linux(Box<Linux>),
}

/// Flags of `opi-bridge linux`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Linux {
    /// Flags of every daemon.
    #[command(flatten)]
    pub(crate) common: daemon::args::Common,
    /// Name of this machine, as sources of the kind `engine` give it: in Kubernetes the node's.
    #[arg(long, visible_alias = "node", value_parser = clap::builder::NonEmptyStringValueParser::new(), env = "OUTBOARD_NODE")]
    pub(crate) node_name: String,
    /// Where clients on this machine find the bridge. The directory is the bridge's alone: it is made with mode 0700.
    #[arg(long, default_value = "/run/outboard/bridge/bridge.sock", value_parser = absolute, env = "OUTBOARD_BRIDGE_SOCKET")]
    pub(crate) socket: PathBuf,
    /// Directory of the objects' records; it must outlive the bridge. It is made with mode 0700.
    #[arg(long, default_value = "/var/lib/outboard/bridge", value_parser = absolute, env = "OUTBOARD_BRIDGE_STATE")]
    pub(crate) state: PathBuf,
    /// Serve on TCP, too, with mTLS: --tls-dir must be given.
    #[arg(
        long,
        value_name = "IP:PORT",
        requires = "tls_dir",
        env = "OUTBOARD_BRIDGE_ADDRESS"
    )]
    pub(crate) address: Option<SocketAddr>,
    /// Directory of ca.crt (who signs the clients that may call), tls.crt and tls.key.
    #[arg(long, value_parser = absolute, env = "OUTBOARD_BRIDGE_TLS_DIR")]
    pub(crate) tls_dir: Option<PathBuf>,
    /// Socket of outboard-engine.
    #[arg(long, default_value = engine::SOCKET, value_parser = absolute, env = "OUTBOARD_ENGINE_SOCKET")]
    pub(crate) engine: PathBuf,
    /// Where a file is made for each volume that is a local block device, and a socket for each vhost-user-blk one. The engine's
    /// daemons must see the same directory.
    #[arg(long, default_value = "/run/outboard/exports", value_parser = absolute, env = "OUTBOARD_EXPORTS_DIR")]
    pub(crate) exports_dir: PathBuf,
    /// The group that virtual machines run as: it, and nobody else, may connect to the vhost-user-blk sockets beside block devices.
    #[arg(long, default_value_t = 107, env = "OUTBOARD_VHOST_GID")]
    pub(crate) vhost_gid: u32,
    /// Directory of credentials for NBD sources: one directory each, with ca-cert.pem, client-cert.pem and client-key.pem.
    #[arg(long, default_value = "/etc/outboard/credentials", value_parser = absolute, env = "OUTBOARD_CREDENTIALS_DIR")]
    pub(crate) credentials_dir: PathBuf,
    /// How the daemons read and write files and devices.
    #[arg(long, value_enum, default_value_t = How::IoUring, env = "OUTBOARD_AIO")]
    pub(crate) aio: How,
    /// Monitor (QMP) of the host's virtual machine, whose root ports are this card's functions.
    #[arg(long, value_parser = absolute, requires = "vm_ports", env = "OUTBOARD_VM_MONITOR")]
    pub(crate) vm_monitor: Option<PathBuf>,
    /// The ids of its free pcie-root-ports, in order of the functions' numbers.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "ID,...",
        env = "OUTBOARD_VM_PORTS"
    )]
    pub(crate) vm_ports: Vec<String>,
}

/// How files are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum How {
    /// By io_uring.
    IoUring,
    /// By Linux AIO.
    Native,
    /// By a pool of threads, where the kernel allows nothing else.
    Threads,
}

impl From<How> for Aio {
    fn from(how: How) -> Self {
        match how {
            How::IoUring => Aio::IoUring,
            How::Native => Aio::Native,
            How::Threads => Aio::Threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn flags_are_validated_when_they_are_parsed() {
        let parse =
            |flags: &[&str]| Config::try_parse_from(["opi-bridge", "linux"].iter().chain(flags));
        let Command::Linux(linux) = parse(&["--node-name", "n"]).unwrap().command;
        assert_eq!(linux.exports_dir, PathBuf::from("/run/outboard/exports"));
        for bad in [
            vec![],
            vec!["--node-name", ""],
            vec!["--node-name", "n", "--state", "state"],
            // TCP is never plain.
            vec!["--node-name", "n", "--address", "127.0.0.1:1"],
            vec!["--node-name", "n", "--vm-monitor", "/q"],
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }
}
