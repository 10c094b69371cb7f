//! The flags of `csi-controller`, validated.

use std::net::IpAddr;
use std::path::PathBuf;

use api::storage;
use daemon::args::{absolute, csi_endpoint};

/// CSI Identity, Controller and GroupController.
#[derive(Debug, clap::Parser)]
#[command(name = "csi-controller", version)]
pub(crate) struct Config {
    /// What to run.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What csi-controller can run.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Serve the CSI socket. Volumes and exports stay when it ends.
    Run(Box<Run>),
}

/// Flags of `csi-controller run`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Run {
    /// Flags of every daemon.
    #[command(flatten)]
    pub(crate) common: daemon::args::Common,
    /// The CSI socket, in a directory that exists; it gets mode 0600, and nothing is put beside it.
    #[arg(long, default_value = "/csi/csi.sock", value_parser = csi_endpoint, env = "CSI_ENDPOINT")]
    pub(crate) endpoint: PathBuf,
    /// The driver's name, as in CSIDriver and StorageClass.
    #[arg(long, default_value = storage::DRIVER, value_parser = driver_name, env = "OUTBOARD_DRIVER_NAME")]
    pub(crate) driver_name: String,
    /// A directory for what is known about volumes beside the backend; it must outlive the program. Made with mode 0700.
    #[arg(long, default_value = "/var/lib/outboard/csi-controller", value_parser = absolute, env = "OUTBOARD_CSI_STATE")]
    pub(crate) state: PathBuf,
    /// A YAML file with the storage backends: see backends.rs, or examples/backends.yaml.
    #[arg(long, value_name = "FILE", value_parser = absolute, env = "OUTBOARD_BACKENDS")]
    pub(crate) backends: PathBuf,
    /// The Kubernetes node that this program runs on: the engineId of backends that name none.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new(), env = "OUTBOARD_NODE")]
    pub(crate) node_name: Option<String>,
    /// That node's address: where hosts reach the volumes of backends that advertise none.
    #[arg(long, value_name = "IP", env = "OUTBOARD_NODE_ADDRESS")]
    pub(crate) node_address: Option<IpAddr>,
    /// A YAML file with the nodes: see nodes/file.rs, or examples/nodes.yaml. Read again when it changes. Without it they come
    /// from Kubernetes (of the pod, or of KUBECONFIG): each Node whose CSINode lists the driver.
    #[arg(long, value_name = "FILE", value_parser = absolute, env = "OUTBOARD_NODES")]
    pub(crate) nodes: Option<PathBuf>,
    /// Where every node's csi-node-dpu listens, at the node's first InternalIP. Not with --nodes.
    #[arg(long, value_name = "PORT", default_value_t = storage::NODE_PORT, value_parser = clap::value_parser!(u16).range(1..), env = "OUTBOARD_NODE_PORT")]
    pub(crate) node_port: u16,
    /// Where cards put a file for each volume that they expose as a local block device: csi-node-host's --exports-dir.
    /// `{node}` stands for the node's name. Not with --nodes.
    #[arg(long, value_name = "DIR", default_value = storage::EXPORTS_DIR, value_parser = directory, env = "OUTBOARD_EXPORTS_DIR")]
    pub(crate) exports_dir: String,
    /// The storage CA: a directory with `tls.crt` and `tls.key`. With it this program makes its own client certificate for
    /// csi-node-dpu, the certificates of backends with a tlsDirectory that has none, and, without --nodes, signs those that
    /// nodes ask for (CertificateSigningRequests with the signer iaas.yusur.io/storage-node).
    #[arg(long, value_name = "DIR", value_parser = absolute, conflicts_with = "node_tls", env = "OUTBOARD_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// How many days a node's certificate lasts; the node renews it after two thirds of that. What is attached keeps the
    /// certificate that it was attached with.
    #[arg(long, value_name = "DAYS", default_value_t = 1095, value_parser = clap::value_parser!(u64).range(1..=7300), env = "OUTBOARD_NODE_CERT_DAYS")]
    pub(crate) node_cert_days: u64,
    /// A directory with `ca-cert.pem`, `client-cert.pem` and `client-key.pem`: as whom csi-node-dpu sees this program, and
    /// whom it trusts. Without it and without --ca only nodes with a `unix:` address can be reached.
    #[arg(long, value_name = "DIR", value_parser = absolute, env = "OUTBOARD_NODE_TLS")]
    pub(crate) node_tls: Option<PathBuf>,
}

fn directory(path: &str) -> Result<String, String> {
    absolute(path).map(|_| path.to_owned())
}

fn driver_name(name: &str) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphabetic());
    let fits = name.len() <= 63 && name.len() > 1 && name.chars().all(inner);
    if fits && ends(name.chars().next()) && ends(name.chars().last()) {
        Ok(name.to_owned())
    } else {
        Err(
            "must have 2 to 63 letters, digits, `-`, `.` or `_`, and begin and end with a letter"
                .to_owned(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn flags_are_validated_when_they_are_parsed() {
        let parse = |flags: &[&str]| {
            let needed = ["csi-controller", "run", "--backends", "/b"];
            Config::try_parse_from(needed.iter().chain(flags))
        };
        let Command::Run(run) = parse(&["--endpoint", "unix:///csi/a.sock"])
            .unwrap()
            .command;
        assert_eq!(run.endpoint, PathBuf::from("/csi/a.sock"));
        assert_eq!((run.nodes, run.node_port), (None, 9483));
        assert!(parse(&["--nodes", "/n", "--node-address", "fd00::1"]).is_ok());
        for bad in [
            ["--endpoint", "/csi/csi"].as_slice(),
            &["--endpoint", "csi.sock"],
            &["--driver-name", "csi.iaas.1"],
            &["--driver-name", "x"],
            &["--state", "here"],
            &["--node-address", "n1"],
            &["--node-name", ""],
            &["--node-port", "0"],
            &["--exports-dir", "exports-{node}"],
            &["--ca", "/ca", "--node-tls", "/tls"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
