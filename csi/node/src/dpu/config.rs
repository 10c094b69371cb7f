//! The flags of `csi-node-dpu`, validated.

use std::net::SocketAddr;
use std::path::PathBuf;

use daemon::args::{absolute, node_name};

use super::identity::Identity;

/// Brings CSI volumes to the hosts of one DPU.
#[derive(Debug, clap::Parser)]
#[command(name = "csi-node-dpu", version)]
pub(crate) struct Config {
    /// What to run.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What csi-node-dpu can run.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Serve csi-controller and csi-node-host. Attachments stay when it ends.
    Run(Box<Run>),
    /// Get this node's storage certificate from the cluster and renew it.
    Identity(Box<Identity>),
}

impl Command {
    /// The flags that every daemon has.
    pub(crate) fn common(&self) -> &daemon::args::Common {
        match self {
            Self::Run(run) => &run.common,
            Self::Identity(identity) => &identity.common,
        }
    }
}

/// Flags of `csi-node-dpu run`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Run {
    /// Flags of every daemon.
    #[command(flatten)]
    pub(crate) common: daemon::args::Common,
    /// A Kubernetes node whose volumes this DPU serves: the host behind it, or without a DPU this very node. May be given more than
    /// once.
    #[arg(long = "serves-node", value_name = "NODE", required = true, value_parser = node_name, env = "OUTBOARD_SERVES_NODE", value_delimiter = ',')]
    pub(crate) serves: Vec<String>,
    /// The socket of volume-attacher.
    #[arg(long, value_name = "PATH", default_value = "/run/outboard/attacher/attacher.sock", value_parser = absolute, env = "OUTBOARD_ATTACHER_SOCKET")]
    pub(crate) attacher: PathBuf,
    /// Where a csi-controller on this machine finds us. The directory is ours alone: it is made with mode 0700.
    #[arg(long, value_name = "PATH", default_value = "/run/outboard/csi-node-dpu/controller.sock", value_parser = absolute, env = "OUTBOARD_CONTROLLER_SOCKET")]
    pub(crate) controller_socket: PathBuf,
    /// Where the csi-node-host of this machine finds us; only where one node is served. The directory is ours alone.
    #[arg(long, value_name = "PATH", default_value = "/run/outboard/csi-node-dpu/host.sock", value_parser = absolute, env = "OUTBOARD_HOST_SOCKET")]
    pub(crate) host_socket: PathBuf,
    /// Serve callers on other machines here, over mTLS.
    #[arg(
        long,
        value_name = "IP:PORT",
        requires = "tls",
        env = "OUTBOARD_DPU_LISTEN"
    )]
    pub(crate) listen: Option<SocketAddr>,
    /// Directory of ca-cert.pem (whom we believe), server-cert.pem and server-key.pem. They are read again for each connection.
    #[arg(long, value_name = "DIR", value_parser = absolute, env = "OUTBOARD_DPU_TLS")]
    pub(crate) tls: Option<PathBuf>,
    /// The name in csi-controller's certificate. It has a character that no node's name can have, so that no node's
    /// certificate is taken for it.
    #[arg(long, value_name = "NAME", default_value = "system:csi-controller", value_parser = controller, env = "OUTBOARD_CONTROLLER_NAME")]
    pub(crate) controller_name: String,
}

fn controller(name: &str) -> Result<String, String> {
    let of_nodes = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if name.chars().all(of_nodes) {
        Err("could be the name of a node; give csi-controller a certificate with a name like system:csi-controller".to_owned())
    } else {
        Ok(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn flags_are_validated_when_they_are_parsed() {
        let parse =
            |flags: &[&str]| Config::try_parse_from(["csi-node-dpu", "run"].iter().chain(flags));
        let Command::Run(run) = parse(&["--serves-node", "a"]).unwrap().command else {
            panic!("`run` was given");
        };
        assert_eq!(run.controller_name, "system:csi-controller");
        for bad in [
            vec![],
            vec!["--serves-node", ""],
            vec!["--serves-node", "a", "--listen", "127.0.0.1:1"],
            vec!["--serves-node", "a", "--attacher", "here"],
            vec!["--serves-node", "a", "--controller-name", "csi-controller"],
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }
}
