//! The flags of `csi-controller`, validated.

use std::path::PathBuf;

/// The driver's name (CSI specification: domain form, at most 63 characters, ends in a letter).
const NAME: &str = "csi.iaas.yusur.io";

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
    #[arg(long, default_value = "/csi/csi.sock", value_parser = socket, env = "CSI_ENDPOINT")]
    pub(crate) endpoint: PathBuf,
    /// The driver's name, as in CSIDriver and StorageClass.
    #[arg(long, default_value = NAME, value_parser = driver_name, env = "OUTBOARD_DRIVER_NAME")]
    pub(crate) driver_name: String,
    /// A directory for what is known about volumes beside the backend; it must outlive the program. Made with mode 0700.
    #[arg(long, default_value = "/var/lib/outboard/csi-controller", value_parser = absolute, env = "OUTBOARD_CSI_STATE")]
    pub(crate) state: PathBuf,
    /// A YAML file with the storage backends: see backends.rs, or examples/backends.yaml.
    #[arg(long, value_name = "FILE", value_parser = absolute, env = "OUTBOARD_BACKENDS")]
    pub(crate) backends: PathBuf,
    /// A YAML file with the nodes: see nodes/file.rs, or examples/nodes.yaml. Read again when it changes.
    #[arg(long, value_name = "FILE", value_parser = absolute, env = "OUTBOARD_NODES")]
    pub(crate) nodes: PathBuf,
    /// A directory with `ca-cert.pem`, `client-cert.pem` and `client-key.pem`: as whom csi-node-dpu sees this program, and
    /// whom it trusts. Without it only nodes with a `unix:` address can be reached.
    #[arg(long, value_name = "DIR", value_parser = absolute, env = "OUTBOARD_NODE_TLS")]
    pub(crate) node_tls: Option<PathBuf>,
}

fn absolute(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("must be an absolute path".to_owned())
    }
}

fn socket(path: &str) -> Result<PathBuf, String> {
    let path = path.strip_prefix("unix://").unwrap_or(path);
    if path.ends_with(".sock") {
        absolute(path)
    } else {
        Err("the name of a CSI socket must end in .sock".to_owned())
    }
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
            let needed = ["csi-controller", "run", "--backends", "/b", "--nodes", "/n"];
            Config::try_parse_from(needed.iter().chain(flags))
        };
        let Command::Run(run) = parse(&["--endpoint", "unix:///csi/a.sock"])
            .unwrap()
            .command;
        assert_eq!(run.endpoint, PathBuf::from("/csi/a.sock"));
        for bad in [
            ["--endpoint", "/csi/csi"],
            ["--endpoint", "csi.sock"],
            ["--driver-name", "csi.iaas.1"],
            ["--driver-name", "x"],
            ["--state", "here"],
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }
}
