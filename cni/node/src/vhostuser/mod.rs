//! Interface kind `vhostuser`: the pod's interface is a socket in a volume of its own, and Open vSwitch's end a port of DPDK.
//!
//! QEMU (or a DPDK application) makes the socket and serves it; Open vSwitch connects, again and again, so that either side may be
//! restarted. No link of the kernel is made. [`asked`] (what the network's configuration asks for) → [`attach`] over [`needs`] (what
//! Open vSwitch must be able to do), [`volume`] (the socket's directory, in a tree that the pod writes), [`mounts`] (the short path
//! that fits into a socket's address) and [`device_info`] (what Multus tells the pod); [`socket`] has the names, [`withdraw`] and
//! [`order`] take things back, and [`ended`] says when. [`tap`] is what a machine gets where there is no DPDK. Everything else is as of any attachment: row, port, journal, reconcile loop.

pub(crate) mod asked;
pub(crate) mod attach;
pub(crate) mod check;
mod claims;
mod device_info;
pub(crate) mod ended;
mod metrics;
mod mounts;
pub(crate) mod needs;
pub(crate) mod order;
pub(crate) mod pair;
mod settings;
pub(crate) mod socket;
pub(crate) mod tap;
mod volume;
pub(crate) mod watch;
pub(crate) mod withdraw;

use std::path::Path;

pub(crate) use asked::Kind;
pub(crate) use metrics::Metrics;
pub(crate) use settings::Args;
pub(crate) use socket::Socket;
pub(crate) use tap::Tap;

use self::claims::Claims;
use self::mounts::Mounts;

/// What this kind needs of the node, beside all that attachments share.
#[derive(Debug)]
pub(crate) struct VhostUser {
    args: Args,
    mounts: Mounts,
    claims: Claims,
    /// Where sysfs is mounted.
    sysfs: std::path::PathBuf,
    pub(crate) metrics: Metrics,
}

impl VhostUser {
    /// Nothing is made or read before the first attachment.
    pub(crate) fn new(args: Args, sysfs: &Path, metrics: Metrics) -> Self {
        Self {
            mounts: Mounts::new(&args.vhost_dir),
            claims: Claims::default(),
            sysfs: sysfs.to_owned(),
            args,
            metrics,
        }
    }
}
