//! `csi-node-host run`: puts the parts together and keeps them until the program is told to end.

use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use daemon::admin::Admin;
use daemon::calls::Calls;
use daemon::keyed::Locks;
use daemon::readiness::Readiness;
use prometheus_client::registry::Registry;
use proto::csi::v1::identity_server::IdentityServer;
use proto::csi::v1::node_server::NodeServer;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

use super::config::Run;
use super::device::Sysfs;
use super::filesystem::Tickets;
use super::identity::{self, Plugin};
use super::mounts;
use super::node::Node;
use super::registration;
use super::repair::Agent;
use super::service::Service;
use super::socket::{self, Late};

/// Port of /metrics, /healthz and /readyz.
const ADMIN_PORT: u16 = 9486;

/// Runs the daemon.
pub(crate) async fn run(args: Run, stop: CancellationToken) -> anyhow::Result<()> {
    let admin = Admin::bind(args.common.admin_address(ADMIN_PORT)).await?;
    let mut registry = Registry::default();
    daemon::process::register(&mut registry, "csi-node-host");
    let calls = Calls::register(&mut registry, "csi_node");
    let readiness = Readiness::default();
    let programs = readiness.check("programs", "not looked for yet");
    programs.set(identity::complaint());

    let sysfs = Sysfs::default();
    let tickets = Tickets::open(&args.run_dir.join("formatting"), sysfs.clone())
        .with_context(|| format!("--run-dir {}", args.run_dir.display()))?;
    let late = Late::open(&args.run_dir.join("sockets"))
        .with_context(|| format!("--run-dir {}", args.run_dir.display()))?;
    // As mountinfo spells it.
    let on_the_way = std::fs::canonicalize(&args.run_dir)
        .with_context(|| format!("--run-dir {}", args.run_dir.display()))?
        .join("mounts");
    clear(&on_the_way)?;
    let node = Arc::new(Node {
        name: args.node_name,
        max_volumes: args.max_volumes,
        exports: args.exports_dir,
        kubelet_root: args.kubelet_root,
        on_the_way,
        sysfs,
        agent: Agent::new(args.dpu_socket),
        replaced: Mutex::default(),
        tickets,
        late,
        locks: Locks::default(),
    });
    let listener = proto::uds::bind(&args.endpoint)
        .await
        .context("--endpoint")?;
    let tasks = TaskTracker::new();
    let late = socket::follow(Arc::clone(&node));
    tasks.spawn(stop.clone().run_until_cancelled_owned(late));
    if let Some(dir) = args.kubelet_registration {
        let endpoint = args.kubelet_endpoint.unwrap_or(args.endpoint);
        let check = readiness.check("kubelet", "kubelet has not registered the driver yet");
        tasks.spawn(registration::run(dir, endpoint, check, stop.clone()));
    }
    let served = Server::builder()
        .add_service(IdentityServer::new(Plugin))
        .add_service(NodeServer::new(Service::new(node, calls)))
        .serve_with_incoming_shutdown(
            proto::uds::incoming(listener),
            stop.clone().cancelled_owned(),
        );
    let admin = admin.serve(registry, readiness, stop.clone());
    tasks.close();
    let result = tokio::try_join!(async { served.await.context("serving CSI") }, admin);
    stop.cancel();
    tasks.wait().await;
    result.map(|_| ())
}

/// Takes away what a kill left between two steps of a read-only bind. Only empty directories are removed: a mount that should still
/// be there has a volume's files in it.
fn clear(dir: &Path) -> anyhow::Result<()> {
    let table = mounts::Table::read()?;
    for mount in table.iter().filter(|mount| mount.point.starts_with(dir)) {
        mounts::detach(&mount.point)?;
    }
    let left = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in left {
        if let Err(error) = std::fs::remove_dir(entry.path()) {
            tracing::warn!(
                "--run-dir: can't remove {}: {error}",
                entry.path().display()
            );
        }
    }
    Ok(())
}
