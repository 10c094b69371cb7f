//! Mode `dpu`: beside what every node does for its own pods, the ports of the host behind this DPU.
//!
//! The host's cni-node speaks over the channel; [`ports`] serves it over the same journal, Open vSwitch and southbound database that
//! the DPU's own pods use, with [`claims`] on the card's functions and [`representor`]s in the place of veth pairs ([`plugging`]).
//! [`sync`] is the host's whole truth after a loss. [`health`] says what is wrong, [`report`] tells Kubernetes, which nothing else
//! here needs.

mod asked;
mod claims;
mod health;
mod look;
mod metrics;
mod moved;
mod offload;
pub(crate) mod plugging;
mod ports;
mod prepare;
mod report;
pub(crate) mod representor;
mod sync;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::pairing::{Pairing, Side};
use channel::proto::Epoch;
use daemon::readiness::{Check, Readiness};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use self::claims::Claims;
use self::metrics::Metrics;
use self::ports::HostPorts;
use self::representor::Kind;
use crate::node::Node;
use crate::rounds::{Pace, Rounds};

/// Steps of the host's requests at which a test build can be held or killed, as [`crate::FAILPOINTS`].
pub const FAILPOINTS: [&str; 8] = [
    "dpu::begun",
    "dpu::plugged",
    "dpu::up",
    "dpu::recorded",
    "dpu::installed",
    "dpu::del_begun",
    "dpu::unplugged",
    "dpu::forgotten",
];

/// Between two attempts to listen.
const RETRY: Duration = Duration::from_secs(2);
/// Refusals that wait to become Events.
const REFUSALS: usize = 64;

/// Flags of mode `dpu`.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "dpu-flags")]
pub(crate) struct Args {
    /// How the card's functions are found on this DPU. The host's --card must be of the same kind.
    #[arg(long, env = "OUTBOARD_REPRESENTORS", value_enum, default_value_t = Kind::Switchdev)]
    pub(crate) representors: Kind,
    /// The card's uplink by link or PCI address; needed where there are several cards.
    #[arg(long, env = "OUTBOARD_UPLINK", value_delimiter = ',')]
    pub(crate) uplink: Vec<String>,
    /// Where the host's cni-node finds this one.
    #[arg(long, env = "OUTBOARD_CHANNEL_ADDRESS", default_value = "0.0.0.0:9478")]
    pub(crate) channel_address: SocketAddr,
    /// Directory of ovs-vswitchd's control socket; asked for the share of offloaded flows.
    #[arg(long, env = "OUTBOARD_OVS_RUNDIR", default_value = "/run/openvswitch")]
    pub(crate) ovs_rundir: PathBuf,
}

/// What mode `dpu` is made of, beside its flags.
pub(crate) struct Start {
    pub(crate) node: Arc<Node>,
    pub(crate) args: Args,
    /// Name of this Kubernetes node.
    pub(crate) node_name: String,
    /// Where sysfs is mounted.
    pub(crate) sysfs: PathBuf,
    /// Directory of the channel's certificate.
    pub(crate) channel_identity: PathBuf,
    /// The pair that this node is in.
    pub(crate) pairing: watch::Receiver<Option<Pairing>>,
    pub(crate) epoch: Epoch,
    pub(crate) rounds: Rounds,
    pub(crate) readiness: Readiness,
    pub(crate) stop: CancellationToken,
}

/// Starts everything. What fails later is a complaint of /readyz.
pub(crate) fn start(start: Start, registry: &mut Registry, tasks: &TaskTracker) {
    let (node, args) = (Arc::clone(&start.node), start.args.clone());
    let address = args.channel_address;
    let metrics = Metrics::register(registry);
    let channel_metrics = channel::DpuMetrics::register(registry);
    let (troubles, told) = watch::channel(Vec::new());
    let (seen, host_state) = watch::channel(channel::HostState::default());
    let (refusals, refused) = broadcast::channel(REFUSALS);
    let representors = representor::provider(args.representors, &start.sysfs, &args.uplink);
    let ports = Arc::new(HostPorts {
        node: Arc::clone(&node),
        representors: Arc::clone(&representors),
        pairing: start.pairing.clone(),
        claims: Claims::of(&node.store.all()),
        troubles: told,
        metrics: metrics.clone(),
    });
    let stop = || start.stop.clone();
    tasks.spawn(health::run(
        Arc::clone(&node),
        troubles,
        metrics.clone(),
        stop(),
    ));
    tasks.spawn(offload::run(args.ovs_rundir, metrics, stop()));
    let pace = Pace::new("representors", &start.rounds, &start.readiness, stop());
    tasks.spawn(moved::run(Arc::clone(&ports), pace));
    tasks.spawn(report::run(
        report::Reporter {
            node_name: start.node_name.clone(),
            epoch: channel::epoch::text(&start.epoch),
            pairing: start.pairing.clone(),
            host: host_state,
            ports: Arc::clone(&ports),
            check: start.readiness.check("dpu-status", "it is not written yet"),
            client: None,
        },
        refused,
        stop(),
    ));
    let (host, paired) = watch::channel(None);
    tasks.spawn(follow_host(
        start.pairing.clone(),
        start.node_name.clone(),
        host,
        stop(),
    ));
    let server = channel::Server {
        node: start.node_name,
        identity: start.channel_identity,
        host: paired,
        release: env!("CARGO_PKG_VERSION"),
        epoch: start.epoch,
        ports,
        seen,
        refusals,
        metrics: channel_metrics,
        check: start.readiness.check("channel", "it does not listen yet"),
    };
    let check = start
        .readiness
        .check("channel-address", "it is not bound yet");
    tasks.spawn(serve(address, server, check, start.stop));
}

/// The name of the host, from the pair.
async fn follow_host(
    mut pairing: watch::Receiver<Option<Pairing>>,
    node: String,
    host: watch::Sender<Option<String>>,
    stop: CancellationToken,
) {
    loop {
        let paired = pairing.borrow_and_update().clone();
        let name = paired
            .filter(|pairing| pairing.side(&node) == Some(Side::Dpu))
            .map(|pairing| pairing.host);
        host.send_if_modified(|held| std::mem::replace(held, name.clone()) != name);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = pairing.changed() => if changed.is_err() {
                return stop.cancelled().await;
            },
        }
    }
}

/// Listens, as soon as the address is free.
async fn serve(
    address: SocketAddr,
    server: channel::Server,
    check: Check,
    stop: CancellationToken,
) {
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(why) => check.not_ready(format!(
                "cannot listen for the host on {address}: {why}; see who has the port, or correct --channel-address"
            )),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    };
    check.ready();
    if let Err(why) = channel::serve(listener, server, stop).await {
        warn!("the channel's server has ended: {why}");
        check.not_ready(format!(
            "the channel's server has ended: {why}; restart cni-node"
        ));
    }
}
