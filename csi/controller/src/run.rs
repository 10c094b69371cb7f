//! `csi-controller run`: puts the parts together and keeps them until the program is told to end.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::identity::sign::{self, SignerConfig};
use anyhow::Context;
use daemon::admin::Admin;
use daemon::readiness::Readiness;
use prometheus_client::registry::Registry;
use proto::csi::v1::controller_server::ControllerServer;
use proto::csi::v1::group_controller_server::GroupControllerServer;
use proto::csi::v1::identity_server::IdentityServer;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backends::{Backends, Here};
use crate::certificates::{self, Ca, Credentials};
use crate::config::Run;
use crate::dpu::Dpus;
use crate::driver::Driver;
use crate::locks::Locks;
use crate::metrics::Metrics;
use crate::nodes::{Nodes, Rule, Source, kubernetes};
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
    let ca = args.ca.as_deref().map(Ca::new);
    let (nodes, mut tasks) = nodes(&args, ca.as_ref(), &readiness).await?;
    let here = Here {
        node: args.node_name,
        address: args.node_address,
        ca: ca.clone(),
    };
    let backends = Backends::open(&args.backends, &here).await?;
    let records = records(&args.state, &backends).await?;
    let credentials = match (ca, args.node_tls) {
        (Some(ca), _) => {
            let targets = backends.iter().filter_map(|served| served.target.clone());
            let targets = targets.collect();
            tasks.spawn(certificates::keep(targets, ca.clone(), stop.clone()));
            Credentials::own(ca)
        }
        (None, Some(dir)) => Credentials::Directory(dir),
        (None, None) => Credentials::None,
    };
    let driver = Arc::new(Driver {
        name: args.driver_name,
        backends,
        nodes,
        dpus: Dpus::new(credentials),
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
    drop(tasks);
    admin.await.context("serving the admin address")?
}

/// Where nodes are looked up, and what goes on as long as the set is kept.
async fn nodes(
    args: &Run,
    ca: Option<&Ca>,
    readiness: &Readiness,
) -> anyhow::Result<(Nodes, JoinSet<()>)> {
    if let Some(file) = &args.nodes {
        let source = Source::open(file.clone())?;
        return Ok((Nodes::File(source), JoinSet::new()));
    }
    let client = kubernetes::client().await?;
    let rule = Rule {
        driver: args.driver_name.clone(),
        port: args.node_port,
        exports: args.exports_dir.clone(),
    };
    let check = readiness.check(
        "nodes",
        "the cluster's CSINodes and Nodes are not known yet",
    );
    let (cache, mut tasks) = kubernetes::Cache::start(&client, rule, check);
    if let Some(ca) = ca {
        let config = SignerConfig {
            certificate: ca.certificate(),
            key: ca.key(),
            lifetime: Duration::from_secs(args.node_cert_days * 24 * 3600),
            profile: ::identity::STORAGE_NODE,
        };
        tasks.spawn(sign::run(client, config));
    }
    Ok((Nodes::Kubernetes(cache), tasks))
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
