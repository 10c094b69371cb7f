//! Registration, as kubelet's plugin watcher does it; Identity.

use std::path::Path;
use std::time::Duration;

use api::storage::DRIVER;
use hyper_util::rt::TokioIo;
use proto::csi::v1::identity_client::IdentityClient;
use proto::csi::v1::{GetPluginCapabilitiesRequest, GetPluginInfoRequest, ProbeRequest};
use proto::kubelet::pluginregistration::v1::registration_client::RegistrationClient;
use proto::kubelet::pluginregistration::v1::{InfoRequest, RegistrationStatus};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::world::{World, eventually};

/// A channel with the `:authority` of kubelet's client: grpc-go makes it of the path, which it escapes but for the `@`.
fn as_kubelet(socket: &Path) -> Channel {
    let authority = socket.to_str().unwrap().replace('/', "%2F");
    let origin = format!("http://{authority}").parse().unwrap();
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost")
        .origin(origin)
        .connect_with_connector_lazy(connector)
}

#[tokio::test]
async fn the_plugin_announces_itself_and_comes_again_after_a_refusal() {
    let mut world = World::without_program().await;
    let registry = world.home().join("registry");
    let flag = registry.display().to_string();
    world
        .start(
            &[
                "--kubelet-registration",
                &flag,
                "--kubelet-endpoint",
                "/k/csi.sock",
            ],
            None,
        )
        .await;
    let socket = registry.join(format!("plugin@{DRIVER}-reg.sock"));
    let listens = || std::os::unix::net::UnixStream::connect(&socket).is_ok();
    eventually("the registration socket", listens).await;
    let mut kubelet = RegistrationClient::new(as_kubelet(&socket));
    let info = kubelet.get_info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (info.r#type.as_str(), info.name.as_str()),
        ("CSIPlugin", DRIVER)
    );
    assert_eq!(info.endpoint, "/k/csi.sock");
    assert_eq!(info.supported_versions, ["1.0.0"]);
    let refusal = RegistrationStatus {
        plugin_registered: false,
        error: "not today".to_owned(),
    };
    kubelet.notify_registration_status(refusal).await.unwrap();
    eventually("it is said", || world.log().contains("not today")).await;
    drop(kubelet);
    eventually("the socket is closed", || !listens()).await;
    eventually("the socket is made anew", listens).await;
    let mut kubelet = RegistrationClient::new(proto::uds::channel(&socket));
    let taken = RegistrationStatus {
        plugin_registered: true,
        error: String::new(),
    };
    kubelet.notify_registration_status(taken).await.unwrap();
    eventually("it is said", || world.log().contains("kubelet registered")).await;
}

#[tokio::test]
async fn identity_is_that_of_the_whole_plugin() {
    let world = World::new().await;
    let mut client = IdentityClient::new(proto::uds::channel(world.socket()));
    let info = client
        .get_plugin_info(GetPluginInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.name, DRIVER);
    assert!(!info.vendor_version.is_empty());
    assert!(info.name.ends_with(|c: char| c.is_ascii_alphabetic()) && info.name.len() <= 63);
    let can = client
        .get_plugin_capabilities(GetPluginCapabilitiesRequest {})
        .await
        .unwrap();
    assert_eq!(can.into_inner().capabilities.len(), 4);
    let mut probe = tonic::Request::new(ProbeRequest {});
    probe.set_timeout(Duration::from_secs(5));
    assert_eq!(
        client.probe(probe).await.unwrap().into_inner().ready,
        Some(true)
    );
}
