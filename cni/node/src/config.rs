//! The flags of `cni-node`, validated.

use std::path::PathBuf;

use clap::CommandFactory;
use clap::error::ErrorKind;
use ovsdb::Remote;

use crate::{chassis, dpu, host, vhostuser};

/// The per-node daemon of Outboard.
#[derive(Debug, clap::Parser)]
#[command(name = "cni-node", version)]
pub(crate) struct Config {
    /// What to run.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What cni-node can run.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Serve CNI requests and keep this node a part of the network.
    Run(Box<Run>),
    /// Get this node's certificate from the cluster and renew it.
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

/// Flags of `cni-node identity`.
#[derive(Debug, clap::Args)]
pub(crate) struct Identity {
    /// Flags of every daemon.
    #[command(flatten)]
    pub(crate) common: daemon::args::Common,
    /// How the certificate is got.
    #[command(flatten)]
    pub(crate) args: identity::ask::Network,
}

/// Flags of `cni-node run`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Run {
    /// Flags of every daemon.
    #[command(flatten)]
    pub(crate) common: daemon::args::Common,
    /// Name of the Kubernetes node (downward API, spec.nodeName).
    #[arg(long, visible_alias = "node", env = "OUTBOARD_NODE")]
    pub(crate) node_name: String,
    /// Where the plugin `outboard` finds this daemon.
    #[arg(long, default_value = api::names::CNI_SOCKET, env = "OUTBOARD_SOCKET")]
    pub(crate) socket: PathBuf,
    /// Directory of the journal of attachments; it must outlive this daemon's pod.
    #[arg(long, default_value = api::names::JOURNAL_DIR, env = "OUTBOARD_JOURNAL_DIR")]
    pub(crate) journal_dir: PathBuf,
    /// The local Open vSwitch database.
    #[arg(
        long,
        default_value = "unix:/run/openvswitch/db.sock",
        env = "OUTBOARD_OVS_DB"
    )]
    pub(crate) ovs_db: Remote,
    /// Servers of OVN's southbound database, separated by commas: ssl:192.168.0.1:6642,… Required, but not with --mode host.
    #[arg(long, env = "OUTBOARD_SB", value_delimiter = ',')]
    pub(crate) sb: Vec<Remote>,
    /// Directory of tls.key, tls.crt and ca.crt.
    #[arg(long, default_value = api::names::IDENTITY_DIR, env = "OUTBOARD_IDENTITY_DIR")]
    pub(crate) identity_dir: PathBuf,
    /// That directory as ovn-controller on the host sees it, if it differs.
    #[arg(long, env = "OUTBOARD_HOST_IDENTITY_DIR")]
    pub(crate) host_identity_dir: Option<PathBuf>,
    /// Directory of ovn-controller's control socket.
    #[arg(long, default_value = "/run/ovn", env = "OUTBOARD_OVN_RUNDIR")]
    pub(crate) ovn_rundir: PathBuf,
    /// What this node is in the network.
    #[arg(long, value_enum, default_value_t = Mode::Default, env = "OUTBOARD_MODE")]
    pub(crate) mode: Mode,
    /// Directory of tls.key, tls.crt and ca.crt for the channel between a host and its DPU, and of pairing.json.
    #[arg(long, default_value = api::names::CHANNEL_IDENTITY_DIR, env = "OUTBOARD_CHANNEL_IDENTITY_DIR")]
    pub(crate) channel_identity_dir: PathBuf,
    /// File with the identity of this boot: what is remembered of another one is void.
    #[arg(
        long,
        default_value = "/proc/sys/kernel/random/boot_id",
        env = "OUTBOARD_BOOT_ID_FILE"
    )]
    pub(crate) boot_id_file: PathBuf,
    /// Where sysfs is mounted.
    #[arg(long, default_value = "/sys", env = "OUTBOARD_SYSFS")]
    pub(crate) sysfs: PathBuf,
    /// How this node is an OVN chassis.
    #[command(flatten)]
    pub(crate) chassis: chassis::Args,
    /// Sockets of virtual machines.
    #[command(flatten)]
    pub(crate) vhost: vhostuser::Args,
    /// The card of a host.
    #[command(flatten)]
    pub(crate) card: host::Args,
    /// How a DPU serves its host.
    #[command(flatten)]
    pub(crate) dpu: dpu::Args,
}

/// What a node is in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// The pods' namespaces and Open vSwitch are on one machine.
    Default,
    /// A host: its pods' ports are on its DPU.
    Host,
    /// A DPU: it has pods of its own, and the ports of its host's pods.
    Dpu,
    /// What pairing.json says at the start: host or DPU; default without it.
    Auto,
}

impl Config {
    /// What clap cannot say of flags that depend on each other.
    ///
    /// # Errors
    /// As clap would report it.
    pub(crate) fn check(&self) -> Result<(), clap::Error> {
        let Command::Run(run) = &self.command else {
            return Ok(());
        };
        if run.mode == Mode::Host {
            return Ok(());
        }
        let missing = [
            (run.sb.is_empty(), "--sb <SB>"),
            (
                run.chassis.encap_ip.is_unspecified(),
                "--encap-ip <ENCAP_IP>",
            ),
        ];
        match missing.into_iter().find(|(missing, _)| *missing) {
            Some((_, flag)) => Err(Self::command().error(
                ErrorKind::MissingRequiredArgument,
                format!("the following required argument was not provided: {flag}"),
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_do_not_contradict_each_other_and_a_host_needs_no_database() {
        Config::command().debug_assert();
        let parse = |words: &[&str]| {
            let program = ["cni-node", "run", "--node-name=n1"];
            <Config as clap::Parser>::try_parse_from([&program, words].concat()).unwrap()
        };
        let missing = parse(&[]).check().unwrap_err();
        assert!(missing.to_string().contains("--sb"), "{missing}");
        assert!(parse(&["--mode=auto"]).check().is_err());
        parse(&["--mode=host"]).check().unwrap();
        let database = "--sb=ssl:127.0.0.1:6642";
        let missing = parse(&[database]).check().unwrap_err();
        assert!(missing.to_string().contains("--encap-ip"), "{missing}");
        parse(&[database, "--encap-ip=127.0.0.1"]).check().unwrap();
    }
}
