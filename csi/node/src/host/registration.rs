//! Announcing the plugin to kubelet (pluginregistration/v1), as the sidecar node-driver-registrar does.
//!
//! The socket stays when the program ends: kubelet would else take the driver off the node for the time of a rollout.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use api::storage::DRIVER;
use daemon::readiness::Check;
use proto::kubelet::pluginregistration::v1::registration_server::{
    Registration, RegistrationServer,
};
use proto::kubelet::pluginregistration::v1::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// What kubelet wants to hear: the CSI specification's major version is what it compares.
const VERSION: &str = "1.0.0";
/// After a refusal, kubelet looks again only at a new socket.
const AGAIN: Duration = Duration::from_secs(10);

/// Kubelet's verdict.
type Verdict = Option<Result<(), String>>;

#[derive(Debug)]
struct Announcement {
    endpoint: String,
    verdict: watch::Sender<Verdict>,
}

#[tonic::async_trait]
impl Registration for Announcement {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: DRIVER.to_owned(),
            endpoint: self.endpoint.clone(),
            supported_versions: vec![VERSION.to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        let verdict = if status.plugin_registered {
            tracing::info!("kubelet registered {DRIVER}");
            Ok(())
        } else {
            tracing::warn!("kubelet refused {DRIVER}: {}", status.error);
            Err(status.error)
        };
        self.verdict.send_replace(Some(verdict));
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

/// The socket's name. Kubelet's client sends the socket's path, percent-encoded, as `:authority`, which no HTTP/2 server of this
/// language takes (no host's name has a `%`). What stands before an `@` is no part of the host, and `@` is not encoded: so the
/// directories count as a user's name, and the host is a name.
fn socket_name() -> String {
    format!("plugin@{DRIVER}-reg.sock")
}

/// Keeps the plugin announced in kubelet's directory `dir` until `stop`. `endpoint` is the CSI socket as kubelet sees it.
pub(crate) async fn run(
    dir: PathBuf,
    endpoint: PathBuf,
    check: Check,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let socket = dir.join(socket_name());
    while !stop.is_cancelled() {
        let again = stop.child_token();
        let served = serve(&socket, &endpoint, &check, again).await;
        if let Err(error) = served {
            check.not_ready(format!("--kubelet-registration: {error:#}"));
            tracing::warn!("registering with kubelet: {error:#}");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
    Ok(())
}

/// Serves the socket until `stop`, or until kubelet refuses.
async fn serve(
    socket: &Path,
    endpoint: &Path,
    check: &Check,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listener = proto::uds::bind(socket)
        .await
        .context("kubelet's directory of plugins")?;
    let (verdict, mut heard) = watch::channel(None);
    let announcement = Announcement {
        endpoint: endpoint.display().to_string(),
        verdict,
    };
    let served = Server::builder()
        .add_service(RegistrationServer::new(announcement))
        .serve_with_incoming_shutdown(
            proto::uds::incoming(listener),
            stop.clone().cancelled_owned(),
        );
    let follow = async {
        while heard.changed().await.is_ok() {
            match heard.borrow_and_update().clone() {
                Some(Ok(())) => check.ready(),
                Some(Err(why)) => {
                    check.not_ready(format!(
                        "kubelet refused {DRIVER}: {why}; see kubelet's log"
                    ));
                    stop.cancel();
                }
                None => {}
            }
        }
    };
    let (served, ()) = tokio::join!(served, follow);
    served.context("serving kubelet")
}
