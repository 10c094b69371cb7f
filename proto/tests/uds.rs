//! A real gRPC server and client over a unix socket.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use proto::csi::v1::identity_client::IdentityClient;
use proto::csi::v1::identity_server::{Identity, IdentityServer};
use proto::csi::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, ProbeRequest, ProbeResponse,
};
use proto::uds;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Code, Request, Response, Status};

/// Answers with the authority it was called by and the peer's process.
struct Driver {
    seen: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl Identity for Driver {
    async fn get_plugin_info(
        &self,
        request: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        let peer = request
            .extensions()
            .get::<UdsConnectInfo>()
            .and_then(|i| i.peer_cred);
        let pid = peer.and_then(|p| p.pid()).unwrap_or_default();
        Ok(Response::new(GetPluginInfoResponse {
            name: "test.outboard".into(),
            vendor_version: pid.to_string(),
            ..Default::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        Ok(Response::new(GetPluginCapabilitiesResponse::default()))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        let seen = self.seen.lock().unwrap().join(" ");
        Err(Status::failed_precondition(seen))
    }
}

async fn serve(path: &Path) -> JoinHandle<()> {
    let listener = uds::bind(path).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = IdentityServer::new(Driver { seen: seen.clone() });
    let see = move |request: tonic::codegen::http::Request<tonic::body::Body>| {
        let authority = request.uri().authority().map(ToString::to_string);
        seen.lock().unwrap().push(authority.unwrap_or_default());
        request
    };
    let server = Server::builder()
        .layer(tower::util::MapRequestLayer::new(see))
        .add_service(service);
    tokio::spawn(async move {
        server
            .serve_with_incoming(uds::incoming(listener))
            .await
            .unwrap()
    })
}

#[tokio::test]
async fn a_call_arrives_with_localhost_as_authority_and_with_the_peer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("csi.sock");
    let server = serve(&path).await;
    let mut client = IdentityClient::new(uds::channel(&path));
    let info = client
        .get_plugin_info(GetPluginInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.vendor_version, std::process::id().to_string());
    let error = client.probe(ProbeRequest {}).await.unwrap_err();
    assert_eq!(error.message(), "localhost localhost");
    server.abort();
}

#[tokio::test]
async fn the_socket_is_private_and_alone_in_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("csi.sock");
    let _listener = uds::bind(&path).await.unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_served_socket_is_not_taken_and_a_stale_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("csi.sock");
    let first = uds::bind(&path).await.unwrap();
    let error = uds::bind(&path).await.unwrap_err();
    assert!(matches!(error, uds::Error::Busy { .. }), "{error}");
    assert!(error.to_string().contains("csi.sock"), "{error}");
    drop(first);
    uds::bind(&path).await.unwrap();
}

#[tokio::test]
async fn of_many_that_bind_at_once_one_gets_each_socket() {
    let dir = tempfile::tempdir().unwrap();
    let binds = (0..32).map(|n| {
        let path = dir.path().join(format!("{}.sock", n % 2));
        tokio::spawn(async move { (n % 2, uds::bind(&path).await) })
    });
    let mut got = [Vec::new(), Vec::new()];
    for bind in binds.collect::<Vec<_>>() {
        match bind.await.unwrap() {
            (socket, Ok(listener)) => got[socket].push(listener),
            (_, Err(error)) => assert!(matches!(error, uds::Error::Busy { .. }), "{error}"),
        }
    }
    assert_eq!(got.map(|g| g.len()), [1, 1]);
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("csi.sock");
    std::fs::write(&path, "precious").unwrap();
    let error = uds::bind(&path).await.unwrap_err();
    assert!(matches!(error, uds::Error::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_channel_outlives_its_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("csi.sock");
    let mut client = IdentityClient::new(uds::channel(&path));
    let error = client
        .get_plugin_info(GetPluginInfoRequest {})
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    for _ in 0..2 {
        let server = serve(&path).await;
        client
            .get_plugin_info(GetPluginInfoRequest {})
            .await
            .unwrap();
        server.abort();
        // The accept loop has ended; connections that it spawned live on, as those of a process that was not killed would.
        server.await.unwrap_err();
    }
}
