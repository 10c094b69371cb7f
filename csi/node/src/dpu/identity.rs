//! `csi-node-dpu identity`: this node's storage certificate, for `csi-node-dpu run` and for the QEMU processes that reach storage
//! targets. The only part of this program that talks to Kubernetes, and it runs in a container of its own.

use ::identity::{STORAGE_NODE, ask};
use tokio_util::sync::CancellationToken;

/// Three years, in seconds: a volume's daemon shows the certificate it was started with, for as long as the volume is attached.
const LIFETIME: &str = "94608000";

/// Flags of `csi-node-dpu identity`.
#[derive(Debug, clap::Args)]
#[command(
    mut_arg("directory", |arg| arg
        .default_value(STORAGE_NODE.directory)
        .help("Directory of tls.key, tls.crt and ca.crt, and of links to them by the names that QEMU looks for; made with mode 0700")),
    mut_arg("ca", |arg| arg
        .default_value("/etc/outboard/storage-ca/ca.crt")
        .help("CA bundle (PEM) that signs the certificates of csi-controller and of storage targets; copied to ca.crt and followed when it changes")),
    mut_arg("lifetime_seconds", |arg| arg.default_value(LIFETIME)),
)]
pub(crate) struct Identity {
    /// Flags of every daemon.
    #[command(flatten)]
    pub(crate) common: daemon::args::Common,
    /// How the certificate is got.
    #[command(flatten)]
    args: ask::Args,
}

impl Identity {
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        ask::run(STORAGE_NODE, self.args, stop).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[command(flatten)]
        identity: Identity,
    }

    #[test]
    fn the_defaults_are_those_of_storage() {
        let parsed = Program::try_parse_from(["p", "--node", "n1", "--keep"]);
        let args = parsed.unwrap().identity.args;
        assert_eq!(
            args.directory.to_str(),
            Some("/var/lib/outboard/storage-identity")
        );
        assert_eq!(args.lifetime_seconds, 3 * 365 * 86_400);
        assert!(args.keep && !args.once);
        let given = ["p", "--node", "n1", "--directory", "/d"];
        let given = Program::try_parse_from(given).unwrap().identity.args;
        assert_eq!(given.directory.to_str(), Some("/d"));
    }
}
