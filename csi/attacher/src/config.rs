//! The flags of `volume-attacher`, validated.

use std::net::SocketAddr;
use std::path::PathBuf;

use daemon::args::{absolute, node_name};

/// Brings volumes to the hosts of one card, and takes them away.
#[derive(Debug, clap::Parser)]
#[command(name = "volume-attacher", version)]
pub(crate) struct Config {
    /// What to run.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What volume-attacher can run.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Serve attachments. They stay when it ends.
    Run(Box<Run>),
}

/// Flags of `volume-attacher run`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Run {
    /// Flags of every daemon.
    #[command(flatten)]
    pub(crate) common: daemon::args::Common,
    /// A host that the card serves, in Kubernetes the node's name; may be given more than once.
    #[arg(long = "host", value_name = "NAME", required = true, value_parser = node_name, env = "OUTBOARD_HOSTS", value_delimiter = ',')]
    pub(crate) hosts: Vec<String>,
    /// The socket of the card's service, opi-bridge.
    #[arg(long, value_name = "PATH", default_value = "/run/outboard/bridge/bridge.sock", value_parser = absolute, env = "OUTBOARD_BRIDGE_SOCKET")]
    pub(crate) bridge: PathBuf,
    /// Directory of the journal; it must outlive the program and the machine's boots. Made with mode 0700.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/outboard/attacher", value_parser = absolute, env = "OUTBOARD_ATTACHER_STATE")]
    pub(crate) state: PathBuf,
    /// Where callers on this machine find us. Its directory is ours alone: it is made with mode 0700.
    #[arg(long, value_name = "PATH", default_value = crate::SOCKET, value_parser = absolute, env = "OUTBOARD_ATTACHER_SOCKET")]
    pub(crate) socket: PathBuf,
    /// Serve callers on other machines here, too, over mTLS.
    #[arg(long, value_name = "IP:PORT", requires_all = ["tls", "allow"], env = "OUTBOARD_ATTACHER_LISTEN")]
    pub(crate) listen: Option<SocketAddr>,
    /// Directory of ca-cert.pem (whom we believe), server-cert.pem and server-key.pem.
    #[arg(long, value_name = "DIR", value_parser = absolute, env = "OUTBOARD_ATTACHER_TLS")]
    pub(crate) tls: Option<PathBuf>,
    /// The common name of a certificate that may call over mTLS; may be given more than once.
    #[arg(
        long,
        value_name = "NAME",
        env = "OUTBOARD_ATTACHER_ALLOW",
        value_delimiter = ','
    )]
    pub(crate) allow: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn flags_are_validated_when_they_are_parsed() {
        let parse =
            |flags: &[&str]| Config::try_parse_from(["volume-attacher", "run"].iter().chain(flags));
        let Command::Run(run) = parse(&["--host", "a", "--host", "b"]).unwrap().command;
        assert_eq!(run.hosts, ["a", "b"]);
        let network = [
            "--host",
            "a",
            "--listen",
            "127.0.0.1:1",
            "--tls",
            "/t",
            "--allow",
            "x",
        ];
        assert!(parse(&network).is_ok());
        for bad in [
            vec![],
            vec!["--host", ""],
            vec!["--host", "a", "--state", "here"],
            vec!["--host", "a", "--listen", "127.0.0.1:1"],
            vec!["--host", "a", "--listen", "127.0.0.1:1", "--tls", "/t"],
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }
}
