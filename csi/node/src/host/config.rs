//! The flags of `csi-node-host`, validated.

use std::path::PathBuf;

use daemon::args::{absolute, csi_endpoint};

/// The longest node id that the CSI specification allows, in bytes.
const NODE_ID: usize = 256;

/// CSI Identity and Node: mounts a host's volumes.
#[derive(Debug, clap::Parser)]
#[command(name = "csi-node-host", version)]
pub(crate) struct Config {
    /// What to run.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What csi-node-host can run.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Serve the CSI socket. Mounts stay when it ends.
    Run(Box<Run>),
}

/// Flags of `csi-node-host run`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Run {
    /// Flags of every daemon.
    #[command(flatten)]
    pub(crate) common: daemon::args::Common,
    /// Name of the Kubernetes node (downward API, spec.nodeName): the node id of CSI.
    #[arg(long, visible_alias = "node", value_parser = node_name, env = "OUTBOARD_NODE")]
    pub(crate) node_name: String,
    /// The CSI socket, in a directory that exists; it gets mode 0600, and nothing is put beside it.
    #[arg(long, default_value = "/csi/csi.sock", value_parser = csi_endpoint, env = "CSI_ENDPOINT")]
    pub(crate) endpoint: PathBuf,
    /// Kubelet's directory of plugin registrations (/var/lib/kubelet/plugins_registry): register there by ourselves.
    /// Not given: the sidecar node-driver-registrar does it.
    #[arg(long, value_name = "DIR", value_parser = absolute, env = "OUTBOARD_KUBELET_REGISTRATION")]
    pub(crate) kubelet_registration: Option<PathBuf>,
    /// The CSI socket as kubelet sees it, if it differs.
    #[arg(long, value_name = "PATH", value_parser = csi_endpoint, env = "OUTBOARD_KUBELET_ENDPOINT")]
    pub(crate) kubelet_endpoint: Option<PathBuf>,
    /// Where this node's card puts a file for each volume that it exposes as a local block device, as the card sees it.
    #[arg(long, default_value = api::storage::EXPORTS_DIR, value_parser = absolute, env = "OUTBOARD_EXPORTS_DIR")]
    pub(crate) exports_dir: PathBuf,
    /// Kubelet's root directory: the vhost-user-blk sockets of a virtual machine's volumes are shown in a volume of its pod, below it.
    #[arg(long, default_value = "/var/lib/kubelet", value_parser = absolute, env = "OUTBOARD_KUBELET_ROOT")]
    pub(crate) kubelet_root: PathBuf,
    /// A directory for notes about formatting that is under way. Nothing in it outlives a reboot, or has to.
    #[arg(long, default_value = "/run/outboard/csi-node-host", value_parser = absolute, env = "OUTBOARD_RUN_DIR")]
    pub(crate) run_dir: PathBuf,
    /// Where csi-node-dpu serves this host: it is asked to bring back a disk that is missing or dead. Nothing there: nobody is asked.
    #[arg(long, default_value = "/run/outboard/csi-node-dpu/host.sock", value_parser = absolute, env = "OUTBOARD_HOST_SOCKET")]
    pub(crate) dpu_socket: PathBuf,
    /// How many volumes this node takes; 0: no limit known.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..), env = "OUTBOARD_MAX_VOLUMES")]
    pub(crate) max_volumes: i64,
}

fn node_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > NODE_ID {
        Err(format!("must have 1 to {NODE_ID} bytes"))
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
        let parse = |flags: &[&str]| {
            let flags = ["csi-node-host", "run"].iter().chain(flags);
            Config::try_parse_from(flags)
        };
        let Command::Run(run) = parse(&["--node-name", "n1", "--endpoint", "unix:///csi/a.sock"])
            .unwrap()
            .command;
        assert_eq!(run.endpoint, PathBuf::from("/csi/a.sock"));
        for bad in [
            vec!["--node-name", ""],
            vec![],
            vec!["--node-name", "n", "--endpoint", "/csi/csi"],
            vec!["--node-name", "n", "--endpoint", "csi.sock"],
            vec!["--node-name", "n", "--max-volumes", "-1"],
            vec!["--node-name", "n", "--exports-dir", "exports"],
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }
}
