//! `cni-node run`: puts the parts together and keeps them until the program is told to end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use daemon::admin::Admin;
use daemon::readiness::Readiness;
use ovsdb::{Client, Config as Database, Tls};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chassis::{Databases, Place};
use crate::config::{Mode, Run};
use crate::metrics::Metrics;
use crate::mode::{self, Part};
use crate::netns::Netns;
use crate::node::Node;
use crate::ovn_controller::OvnController;
use crate::rounds::{Pace, Rounds};
use crate::southbound::Southbound;
use crate::store::Store;
use crate::under_way::UnderWay;
use crate::vhostuser::{self, VhostUser};
use crate::vswitch::Vswitch;
use crate::{chassis, dpu, gateway, host, pairing, plugged, reconcile, server, status, vip};
use daemon::keyed::Locks;

/// Port of /metrics, /healthz and /readyz.
pub(crate) const ADMIN_PORT: u16 = 9476;

/// Runs the daemon as what this node is.
pub(crate) async fn run(args: Run, stop: CancellationToken) -> anyhow::Result<()> {
    match mode::decide(&args)? {
        Part::Host => host::run(args, stop).await,
        part => with_vswitch(args, part, stop).await,
    }
}

/// The identity of this boot.
///
/// # Errors
/// The file that is to say it cannot be read.
pub(crate) fn boot_id(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("reading the boot id from {}", file.display()))?;
    Ok(text.trim().to_owned())
}

/// A node with Open vSwitch: a plain one, or a DPU.
async fn with_vswitch(args: Run, part: Part, stop: CancellationToken) -> anyhow::Result<()> {
    let admin = Admin::bind(args.common.admin_address(ADMIN_PORT)).await?;
    let mut registry = Registry::default();
    daemon::process::register(&mut registry, "cni-node");
    let readiness = Readiness::default();
    let rounds = Rounds::register(&mut registry);
    let metrics = Metrics::register(&mut registry);
    let pace = |name| Pace::new(name, &rounds, &readiness, stop.clone());

    let databases = Databases {
        vswitch: vswitch(&args),
        southbound: southbound(&args),
    };
    let place = place(&args);
    let (mtu, pod_mtu) = watch::channel(None);
    let (recovery, recovered) = watch::channel(false);
    let (gateway_port, node_port) = watch::channel(None);
    let boot = boot_id(&args.boot_id_file)?;
    let node = Arc::new(Node {
        host: Netns::host().context("opening the host's network namespace")?,
        southbound: Southbound::new(databases.southbound.clone(), &place.chassis),
        vswitch: Vswitch::new(databases.vswitch.clone(), &args.chassis.datapath_type),
        ovn_controller: OvnController::new(&args.ovn_rundir),
        store: Store::open(&args.journal_dir, &boot).context("--journal-dir")?,
        locks: Locks::default(),
        under_way: UnderWay::default(),
        mtu: pod_mtu.clone(),
        recovered,
        metrics,
        vhost: VhostUser::new(
            args.vhost.clone(),
            &args.sysfs,
            vhostuser::Metrics::register(&mut registry),
        ),
    });
    let socket = daemon::socket::bind(&args.socket).context("--socket")?;

    let tasks = TaskTracker::new();
    if args.mode == Mode::Auto || part == Part::Dpu {
        let pair = pairing::follow(args.channel_identity_dir.clone(), stop.clone());
        if args.mode == Mode::Auto {
            let node_name = args.node_name.clone();
            tasks.spawn(mode::compare(part, node_name, pair.clone(), pace("mode")));
        }
        if part == Part::Dpu {
            let start = dpu::Start {
                node: Arc::clone(&node),
                args: args.dpu.clone(),
                node_name: args.node_name.clone(),
                sysfs: args.sysfs.clone(),
                channel_identity: args.channel_identity_dir.clone(),
                pairing: pair,
                epoch: channel::epoch::of_this_process(&boot),
                rounds: rounds.clone(),
                readiness: readiness.clone(),
                stop: stop.clone(),
            };
            dpu::start(start, &mut registry, &tasks);
        }
    }
    let links = gateway::Links {
        mtu: pod_mtu,
        port: gateway_port,
    };
    tasks.spawn(chassis::run(
        place.clone(),
        args.chassis,
        databases.clone(),
        mtu,
        pace("chassis"),
    ));
    tasks.spawn(plugged::run(
        node.store.clone(),
        place.chassis.clone(),
        databases.southbound.clone(),
        pace("plugged"),
        stop.clone(),
    ));
    tasks.spawn(gateway::run(
        place.chassis,
        databases.clone(),
        links,
        pace("gateway"),
    ));
    tasks.spawn(vip::run(databases.southbound, node_port, pace("vip")));
    tasks.spawn(reconcile::run(
        Arc::clone(&node),
        recovery,
        pace("attachments"),
    ));
    tasks.spawn(vhostuser::watch::run(Arc::clone(&node), pace("vhostuser")));
    tasks.spawn(watch_health(Arc::clone(&node), pace("cni")));
    tasks.spawn(server::run(node, socket, stop.clone()));
    tasks.close();
    admin.serve(registry, readiness, stop).await?;
    tasks.wait().await;
    Ok(())
}

/// Keeps the check `cni` of /readyz what STATUS would say.
async fn watch_health(node: Arc<Node>, mut pace: Pace) {
    pace.wake_on(node.southbound.client().status());
    pace.wake_on(node.vswitch.client().status());
    pace.wake_on(node.recovered.clone());
    pace.wake_on(node.mtu.clone());
    loop {
        let started = tokio::time::Instant::now();
        pace.finish(started, &status::sentences(&node).await);
        if pace.next().await.is_none() {
            return;
        }
    }
}

fn vswitch(args: &Run) -> Client {
    Client::start(Database::new("Open_vSwitch", vec![args.ovs_db.clone()]))
}

fn southbound(args: &Run) -> Client {
    let file = |name: &str| args.identity_dir.join(name);
    let mut database = Database::new("OVN_Southbound", args.sb.clone());
    database.tls = Some(Tls {
        key: file("tls.key"),
        cert: file("tls.crt"),
        ca: file("ca.crt"),
    });
    Client::start(database)
}

fn place(args: &Run) -> Place {
    let remotes: Vec<String> = args.sb.iter().map(ToString::to_string).collect();
    let identity: &PathBuf = args
        .host_identity_dir
        .as_ref()
        .unwrap_or(&args.identity_dir);
    Place {
        node: args.node_name.clone(),
        chassis: api::names::chassis(&args.node_name),
        southbound: remotes.join(","),
        identity: identity.clone(),
    }
}
