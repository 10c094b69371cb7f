//! The flags. KubeVirt sets none: they are for tests, and for sidecars that are not a binding's.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::files::Places;

/// The exit code of a program whose flags are wrong (`EX_USAGE` of sysexits.h): a restart will not help.
const EXIT_USAGE: u8 = 64;

/// A KubeVirt hook sidecar: gives a VM vhost-user network interfaces, and vhost-user-blk disks.
///
/// Registered in the KubeVirt CR under spec.configuration.network.binding.<name>.sidecarImage; a VM uses it by
/// `interfaces: [{name: …, binding: {name: <name>}}]`. virt-launcher starts it in every such VM's pod and calls it
/// before it defines the domain. Exits when virt-launcher says that the VM has ended, when virt-launcher is gone, and on SIGTERM.
#[derive(Debug, Clone, Parser)]
#[command(version, max_term_width = 100)]
pub struct Config {
    /// The binding whose interfaces are ours; all others are left alone. KubeVirt sets the variable.
    #[arg(long, env = "NETWORK_BINDING_PLUGIN_NAME", value_name = "NAME", value_parser = label)]
    pub binding: String,

    /// This container. virt-launcher tells sockets apart by their file names, so it is part of the socket's:
    /// <binding>-<container>.sock. KubeVirt sets the variable.
    #[arg(long, env = "CONTAINER_NAME", value_name = "NAME", value_parser = label)]
    pub container_name: String,

    /// Where the socket is made: this container's own part of the pod's volume hook-sidecar-sockets.
    #[arg(
        long,
        env = "OUTBOARD_SHIM_SOCKET_DIR",
        value_name = "DIR",
        default_value = "/var/run/kubevirt-hooks"
    )]
    pub socket_dir: PathBuf,

    /// The whole of that volume as the container `compute` sees it: paths in the domain XML begin with it. The CNI lets
    /// QEMU make its sockets in DIR/outboard/net. A volume that annotation iaas.yusur.io/vhost-user-blk names ("data", or
    /// "data:4" for four queues) is at DIR/outboard/blk/<its claim>/disk.sock, where the CSI node plugin mounts the directory.
    #[arg(
        long,
        env = "OUTBOARD_SHIM_HOOKS_DIR",
        value_name = "DIR",
        default_value = "/var/run/kubevirt-hooks"
    )]
    pub hooks_dir: String,

    /// virt-launcher's own socket, as it binds it. It is looked for in the pod's list of sockets: once it was there and is gone, so is
    /// virt-launcher, and the program exits.
    #[arg(
        long,
        env = "OUTBOARD_SHIM_LAUNCHER_SOCKET",
        value_name = "PATH",
        default_value = "/var/run/kubevirt/sockets/launcher-init-sock"
    )]
    pub launcher_socket: String,

    /// KubeVirt's file about the binding's networks: there if the binding is registered with `downwardAPI: device-info`,
    /// and then waited for.
    #[arg(
        long,
        env = "OUTBOARD_SHIM_NETWORK_INFO",
        value_name = "FILE",
        default_value = "/etc/podinfo/network-info"
    )]
    pub network_info: PathBuf,

    /// The links of the pod's network namespace: a tap of an interface's own name was made by the CNI instead of a socket, on a
    /// node without DPDK.
    #[arg(
        long,
        env = "OUTBOARD_SHIM_LINKS",
        value_name = "DIR",
        default_value = "/sys/class/net"
    )]
    pub links: PathBuf,

    /// The pod's annotations as the downward API writes them (what app-netutil reads); asked second.
    #[arg(
        long,
        env = "OUTBOARD_SHIM_ANNOTATIONS",
        value_name = "FILE",
        default_value = "/etc/podnetinfo/annotations"
    )]
    pub annotations: PathBuf,

    /// Metadata of DRA claims (KEP-5304); asked third, for networks with a resourceClaim.
    #[arg(
        long,
        env = "OUTBOARD_SHIM_DRA_METADATA",
        value_name = "DIR",
        default_value = "/var/run/kubernetes.io/dra-device-attributes"
    )]
    pub dra_metadata: PathBuf,

    /// How long a call waits for a file that is there and does not name the network yet, such as 50s or 500ms. virt-launcher
    /// gives a call a minute, and kubelet takes up to a minute to write such a file; after an error the start is tried again.
    #[arg(long, env = "OUTBOARD_SHIM_WAIT", value_name = "TIME", default_value = "50s", value_parser = duration)]
    pub wait: Duration,

    /// Put static addresses into what cloud-init is told (annotation iaas.yusur.io/cloud-init-network). On by itself where
    /// the binding's name ends in "-cloudinit". Off otherwise: virt-launcher crashes for a VM that has no cloud-init
    /// volume if any sidecar asks to be called for it.
    #[arg(long, env = "OUTBOARD_SHIM_CLOUD_INIT")]
    pub cloud_init: bool,

    /// How log lines on standard error look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "OUTBOARD_LOG_FORMAT")]
    pub log_format: LogFormat,

    /// What is logged: a level, or targets such as "info,shim=debug".
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        env = "OUTBOARD_LOG"
    )]
    pub log: Targets,
}

/// The look of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One readable line per event.
    Text,
    /// One JSON object per event, for a log collector.
    Json,
}

/// The flags of this process.
///
/// # Errors
///
/// The exit code to end with, after the reason (or the help that was asked for) has been printed: 64 for wrong flags, 0 for
/// `--help` and `--version`.
pub fn parse() -> Result<Config, ExitCode> {
    Config::try_parse().map_err(|error| {
        // Nothing can be done for a closed terminal, and the exit code tells.
        let _ = error.print();
        if error.use_stderr() {
            ExitCode::from(EXIT_USAGE)
        } else {
            ExitCode::SUCCESS
        }
    })
}

impl Config {
    /// Log lines go to standard error from here on.
    pub fn log_lines(&self) {
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let subscriber = tracing_subscriber::registry().with(self.log.clone());
        // Fails only where a subscriber is installed already: then that one's lines are wanted.
        let _ = match self.log_format {
            LogFormat::Text => subscriber.with(lines.with_ansi(false)).try_init(),
            LogFormat::Json => subscriber.with(lines.json().flatten_event(true)).try_init(),
        };
    }

    /// The hook socket. virt-launcher takes each file name once, whatever directory it is in.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        let name = format!("{}-{}.sock", self.binding, self.container_name);
        self.socket_dir.join(name)
    }

    /// Where the resolver's files are.
    #[must_use]
    pub fn places(&self) -> Places {
        Places {
            network_info: self.network_info.clone(),
            annotations: self.annotations.clone(),
            dra: self.dra_metadata.clone(),
            links: self.links.clone(),
            hooks: self.hooks_dir.trim_end_matches('/').to_owned(),
        }
    }

    /// Whether virt-launcher shall ask what cloud-init is told.
    #[must_use]
    pub fn tells_cloud_init(&self) -> bool {
        self.cloud_init || self.binding.ends_with("-cloudinit")
    }
}

/// A name that Kubernetes would give, for it becomes a part of a file's name.
fn label(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    if text.is_empty()
        || text.len() > 63
        || text.starts_with(['-', '.'])
        || !text.chars().all(plain)
    {
        return Err("a name is 1 to 63 lower case letters, digits, '-' and '.'".into());
    }
    Ok(text.to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let milliseconds = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => number.parse().ok(),
        (None, Some(number)) => number.parse::<u64>().ok().and_then(|s| s.checked_mul(1000)),
        (None, None) => None,
    };
    let time = milliseconds.map(Duration::from_millis);
    time.filter(|time| *time <= Duration::from_secs(55))
        .ok_or_else(|| "a time is such as 50s or 500ms, and at most 55s".into())
}
