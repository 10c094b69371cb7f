//! The flags of this kind.

use std::path::PathBuf;

/// How sockets of virtual machines and of DPDK applications are reached.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "vhost-flags")]
pub(crate) struct Args {
    /// Directory of the short mounts through which Open vSwitch reaches pods' sockets; on the host at the same path, and mounted into
    /// cni-node's pod with mountPropagation Bidirectional.
    #[arg(
        long,
        default_value = "/run/outboard/vhost",
        env = "OUTBOARD_VHOST_DIR"
    )]
    pub(crate) vhost_dir: PathBuf,
    /// kubelet's root directory: the volumes of pods are below it.
    #[arg(
        long,
        default_value = "/var/lib/kubelet",
        env = "OUTBOARD_KUBELET_ROOT"
    )]
    pub(crate) kubelet_root: PathBuf,
    /// The user that virtual machines run as: owner of their sockets' directories.
    #[arg(long, default_value_t = 107, env = "OUTBOARD_VHOST_UID")]
    pub(crate) vhost_uid: u32,
    /// The group of these directories.
    #[arg(long, default_value_t = 107, env = "OUTBOARD_VHOST_GID")]
    pub(crate) vhost_gid: u32,
}
