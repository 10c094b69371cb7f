//! `csi-controller run`: puts the parts together and keeps them until the program is told to end.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use daemon::admin::Admin;
use daemon::readiness::Readiness;
use prometheus_client::registry::Registry;
use proto::csi::v1::controller_server::ControllerServer;
use proto::csi::v1::group_controller_server::GroupControllerServer;
use proto::csi::v1::identity_server::IdentityServer;
use tokio_util::sync::CancellationToken;

use crate::backends::Backends;
use crate::config::Run;
use crate::dpu::Dpus;
use crate::driver::Driver;
use crate::locks::Locks;
use crate::metrics::Metrics;
use crate::nodes::{Nodes, Source};
use crate::places::Places;
use crate::record::Records;
use crate::{controller, group, identity};

/// Port of /metrics, /healthz and /readyz.
const ADMIN_PORT: u16 = 9480;

/// Runs the program.
pub(crate) async fn run(args: Run, stop: CancellationToken) -> anyhow::Result<()> {
    let admin = Admin::bind(args.common.admin_address(ADMIN_PORT)).await?;
    let mut registry = Registry::default();
    daemon::process::register(&mut registry, "csi-controller");
    let metrics = Metrics::register(&mut registry);
    let readiness = Readiness::default();
    let serving = readiness.check("csi", "the backends are being opened");
    let ended = stop.clone();
    let admin = tokio::spawn(admin.serve(registry, readiness.clone(), ended));

    make_private(&args.state)?;
    let nodes = Nodes::new(Source::open(args.nodes)?);
    let backends = Backends::open(&args.backends).await?;
    let records = records(&args.state, &backends).await?;
    let driver = Arc::new(Driver {
        name: args.driver_name,
        backends,
        nodes,
        dpus: Dpus::new(args.node_tls),
        records,
        locks: Locks::default(),
        places: Places::default(),
        metrics,
        readiness,
    });
    let listener = proto::uds::bind(&args.endpoint)
        .await
        .context("--endpoint")?;
    serving.ready();
    tracing::info!(endpoint = %args.endpoint.display(), "serving CSI");
    tonic::transport::Server::builder()
        .add_service(IdentityServer::new(identity::Service(Arc::clone(&driver))))
        .add_service(ControllerServer::new(controller::Service(Arc::clone(
            &driver,
        ))))
        .add_service(GroupControllerServer::new(group::Service(driver)))
        .serve_with_incoming_shutdown(proto::uds::incoming(listener), stop.cancelled())
        .await
        .context("serving the CSI socket")?;
    admin.await.context("serving the admin address")?
}

/// The records, as the backends' volumes say.
async fn records(state: &Path, backends: &Backends) -> anyhow::Result<Records> {
    let mut volumes = Vec::new();
    for served in backends.iter() {
        let page = served.backend.list(0, None).await?;
        let backend = served.backend.name();
        volumes.extend(
            page.items
                .into_iter()
                .map(|volume| (volume.name, backend.to_owned())),
        );
    }
    let state = state.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let records = Records::open(&state)?;
        records.sweep(volumes)?;
        anyhow::Ok(records)
    });
    opened.await?
}

fn make_private(dir: &Path) -> anyhow::Result<()> {
    let mut made = std::fs::DirBuilder::new();
    made.recursive(true).mode(0o700);
    made.create(dir)
        .with_context(|| format!("--state: can't make {}", dir.display()))
}
