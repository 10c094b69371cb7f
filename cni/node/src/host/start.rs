//! Puts the parts of a host together and keeps them until the program is told to end.

use std::sync::Arc;

use anyhow::Context;
use channel::{HostMetrics, Link, LinkConfig};
use daemon::admin::Admin;
use daemon::keyed::Locks;
use daemon::readiness::Readiness;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use api::pairing::{Pairing, Side};

use super::attached::Attached;
use super::card::Card;
use super::metrics::Metrics as CardMetrics;
use super::node::HostNode;
use super::{function, gateway, reconcile, status};
use crate::config::{Mode, Run};
use crate::metrics::Metrics;
use crate::mode::{self, Part};
use crate::netns::Netns;
use crate::rounds::{Pace, Rounds};
use crate::run::{ADMIN_PORT, boot_id};
use crate::store::Store;
use crate::under_way::UnderWay;
use crate::{pairing, server};

/// Directory of the journal below that of a plain node, whose records are others.
const JOURNAL: &str = "host";

/// Runs the daemon.
pub(crate) async fn run(args: Run, stop: CancellationToken) -> anyhow::Result<()> {
    let admin = Admin::bind(args.common.admin_address(ADMIN_PORT)).await?;
    let mut registry = Registry::default();
    daemon::process::register(&mut registry, "cni-node");
    let readiness = Readiness::default();
    let rounds = Rounds::register(&mut registry);
    let pace = |name| Pace::new(name, &rounds, &readiness, stop.clone());
    let host = assemble(&args, &mut registry, &stop)?;
    let socket = daemon::socket::bind(&args.socket).context("--socket")?;

    let tasks = TaskTracker::new();
    if args.mode == Mode::Auto {
        let (part, name) = (Part::Host, args.node_name.clone());
        tasks.spawn(mode::compare(part, name, host.pair.clone(), pace("mode")));
    }
    let node = Arc::clone(&host.node);
    tasks.spawn(watch_health(Arc::clone(&node), pace("cni")));
    tasks.spawn(server::run(node, socket, stop.clone()));
    keep(host, pace, &tasks, &stop);
    tasks.close();
    admin.serve(registry, readiness, stop).await?;
    tasks.wait().await;
    Ok(())
}

/// A host whose parts are there, and not yet kept.
pub(super) struct Host {
    pub(super) node: Arc<HostNode>,
    recovery: watch::Sender<bool>,
    pair: watch::Receiver<Option<Pairing>>,
}

/// Makes the parts.
pub(super) fn assemble(
    args: &Run,
    registry: &mut Registry,
    stop: &CancellationToken,
) -> anyhow::Result<Host> {
    let boot = boot_id(&args.boot_id_file)?;
    let (recovery, recovered) = watch::channel(false);
    let store = Store::open(&args.journal_dir.join(JOURNAL), &boot).context("--journal-dir")?;
    let host_metrics = CardMetrics::register(registry);
    let attached = Attached::default();
    let pair = pairing::follow(args.channel_identity_dir.clone(), stop.clone());
    for record in whole(&store) {
        attached.enter(&record);
    }
    let card = Card::new(
        function::provider(&args.card, &args.sysfs, stop.clone()),
        store.all().into_iter().map(|one| (one.function, one.id)),
        host_metrics.clone(),
    );
    let link = Link::start(
        LinkConfig {
            node: args.node_name.clone(),
            identity: args.channel_identity_dir.clone(),
            release: env!("CARGO_PKG_VERSION"),
            epoch: channel::epoch::of_this_process(&boot),
            set: Arc::new({
                let attached = attached.clone();
                move || attached.all()
            }),
            // What keeps this host from serving an ADD is said by its own STATUS; the DPU needs nothing of it.
            troubles: watch::channel(Vec::new()).1,
            metrics: HostMetrics::register(registry),
        },
        of_host(&args.node_name, pair.clone(), stop.clone()),
        stop.clone(),
    );
    let node = Arc::new(HostNode {
        host: Netns::host().context("opening the host's network namespace")?,
        card,
        link,
        attached,
        store,
        locks: Locks::default(),
        under_way: UnderWay::default(),
        recovered,
        metrics: Metrics::register(registry),
        host_metrics,
    });
    Ok(Host {
        node,
        recovery,
        pair,
    })
}

/// Starts the loops.
pub(super) fn keep(
    host: Host,
    pace: impl Fn(&'static str) -> Pace,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let Host { node, recovery, .. } = host;
    let attachments = pace("attachments");
    tasks.spawn(reconcile::run(Arc::clone(&node), recovery, attachments));
    tasks.spawn(reconcile::resync(Arc::clone(&node), stop.clone()));
    tasks.spawn(gateway::run(node, pace("gateway")));
}

fn whole(store: &Store<super::record::Record>) -> Vec<super::record::Record> {
    let mut all = store.all();
    all.retain(|record| record.told.is_some());
    all
}

/// The DPU of this host; none where the pair is another one.
fn of_host(
    node: &str,
    mut pair: watch::Receiver<Option<Pairing>>,
    stop: CancellationToken,
) -> watch::Receiver<Option<channel::Pairing>> {
    let node = node.to_owned();
    let read = move |pair: &Option<Pairing>| {
        let pair = pair.as_ref()?;
        (pair.side(&node) == Some(Side::Host)).then(|| channel::Pairing {
            dpu: pair.dpu.clone(),
            address: pair.socket_address(),
        })
    };
    let (sender, receiver) = watch::channel(read(&pair.borrow_and_update()));
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        while pair.changed().await.is_ok() {
            sender.send_replace(read(&pair.borrow_and_update()));
        }
    }));
    receiver
}

/// Keeps the check `cni` of /readyz what STATUS would say.
async fn watch_health(node: Arc<HostNode>, mut pace: Pace) {
    pace.wake_on(node.link.state());
    pace.wake_on(node.recovered.clone());
    loop {
        let started = tokio::time::Instant::now();
        pace.finish(started, &status::sentences(&node));
        if pace.next().await.is_none() {
            return;
        }
    }
}
