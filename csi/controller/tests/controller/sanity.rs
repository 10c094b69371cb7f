//! csi-sanity against csi-controller alone: everything but what mounts. (The whole chain runs it with the node's half.)

use std::path::Path;
use std::process::Command;

use proto::csi::v1::identity_client::IdentityClient;
use proto::csi::v1::identity_server::{Identity, IdentityServer};
use proto::csi::v1::node_server::{Node, NodeServer};
use proto::csi::v1::*;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::world::{World, run};

pub(crate) const TESTS: &[(&str, fn())] = &[("sanity_of_the_controller", sanity_of_the_controller)];

/// How the specs of a run ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: Vec<String>,
}

/// Runs the suite's specs that `focus` names and `skip` does not.
fn sanity(world: &World, endpoint: &Path, focus: &str, skip: &str) -> Count {
    let root = world.dir.path();
    let report = root.join("sanity.json");
    let secrets = root.join("secrets.yaml");
    let names = [
        "CreateVolume",
        "DeleteVolume",
        "ControllerPublishVolume",
        "ControllerUnpublishVolume",
    ];
    let text: String = names
        .map(|name| format!("{name}Secret: {{password: hunter2}}\n"))
        .concat();
    std::fs::write(&secrets, text).unwrap();
    let mutable = root.join("mutable.yaml");
    std::fs::write(&mutable, "iops: \"1000\"\n").unwrap();
    let output = Command::new(program())
        .arg(format!("--csi.endpoint={}", endpoint.display()))
        .arg(format!(
            "--csi.controllerendpoint={}",
            root.join("csi/csi.sock").display()
        ))
        .arg(format!("--csi.mountdir={}", root.join("mount").display()))
        .arg(format!(
            "--csi.stagingdir={}",
            root.join("staging").display()
        ))
        .arg(format!("--csi.secrets={}", secrets.display()))
        .arg(format!(
            "--csi.testvolumemutableparameters={}",
            mutable.display()
        ))
        .args([
            "--csi.testvolumesize=16777216",
            "--csi.testvolumeexpandsize=33554432",
        ])
        .arg(format!("--ginkgo.json-report={}", report.display()))
        .args([
            format!("--ginkgo.focus={focus}"),
            format!("--ginkgo.skip={skip}"),
        ])
        .args([
            "--ginkgo.no-color",
            "--ginkgo.timeout=5m",
            "--csi.testnodevolumeattachlimit",
        ])
        .output()
        .expect("run csi-sanity (`make setup` builds it)");
    let count = count(&std::fs::read(&report).unwrap_or_default());
    if !output.status.success() || count.failed > 0 {
        panic!("{count:?}\n{}", String::from_utf8_lossy(&output.stdout));
    }
    count
}

/// Where `make setup` puts it.
fn program() -> String {
    let setup = concat!(env!("CARGO_MANIFEST_DIR"), "/../../e2e/tools/setup.sh");
    let output = Command::new("bash")
        .args([setup, "--print-bin"])
        .output()
        .unwrap();
    format!(
        "{}/csi-sanity",
        String::from_utf8(output.stdout).unwrap().trim()
    )
}

fn count(report: &[u8]) -> Count {
    let report: serde_json::Value = serde_json::from_slice(report).unwrap_or_default();
    let mut count = Count::default();
    for spec in report[0]["SpecReports"].as_array().into_iter().flatten() {
        if spec["LeafNodeType"] != "It" {
            continue;
        }
        match spec["State"].as_str().unwrap() {
            "passed" => count.passed += 1,
            // Not in the focus, pending, or skipped by the spec itself: only the last one has a message.
            "skipped" | "pending" => {
                let why = spec["Failure"]["Message"].as_str().unwrap_or_default();
                if !why.is_empty() {
                    count
                        .skipped
                        .push(format!("{}: {why}", spec["LeafNodeText"].as_str().unwrap()));
                }
            }
            _ => count.failed += 1,
        }
    }
    count
}

fn sanity_of_the_controller() {
    run(async {
        let world = World::new().await;
        world.write_nodes(", limit: 3", "");
        let node = world.path("csi/node.sock");
        let listener = proto::uds::bind(&node).await.unwrap();
        let identity = IdentityServer::new(Same(world.identity()));
        let server = tonic::transport::Server::builder()
            .add_service(identity)
            .add_service(NodeServer::new(Info));
        tokio::spawn(async move {
            let _ = { server }
                .serve_with_incoming(proto::uds::incoming(listener))
                .await;
        });
        tokio::task::spawn_blocking(move || {
            let mounts = "Node Service|\\[Node Server\\]|volume lifecycle";
            let count = sanity(&world, &node, "Identity|Controller", mounts);
            println!(
                "csi-sanity: {} passed, {} failed, {} skipped: {:#?}",
                count.passed,
                count.failed,
                count.skipped.len(),
                count.skipped
            );
            // The skipped ones ask for what this driver does not announce: LIST_VOLUME_HEALTH and
            // SNAPSHOT_ACCESSIBILITY_CONSTRAINTS.
            let counts = (count.passed, count.failed, count.skipped.len());
            assert_eq!(counts, (71, 0, 2), "{count:?}");
            assert!(
                !world.controller_log().contains("hunter2"),
                "secrets in the log"
            );
        })
        .await
        .unwrap();
    });
}

/// The suite asks the node's socket what the plugin can do: the same as csi-controller.
struct Same(IdentityClient<Channel>);

#[tonic::async_trait]
#[rustfmt::skip]
impl Identity for Same {
    async fn get_plugin_info(&self, request: Request<GetPluginInfoRequest>) -> Result<Response<GetPluginInfoResponse>, Status> {
        self.0.clone().get_plugin_info(request.into_inner()).await
    }
    async fn get_plugin_capabilities(&self, request: Request<GetPluginCapabilitiesRequest>) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        self.0.clone().get_plugin_capabilities(request.into_inner()).await
    }
    async fn probe(&self, request: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        self.0.clone().probe(request.into_inner()).await
    }
}

/// As much of a node as the suite needs to publish volumes: who it is.
struct Info;

#[tonic::async_trait]
#[rustfmt::skip]
impl Node for Info {
    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Result<Response<NodeGetInfoResponse>, Status> {
        let info = NodeGetInfoResponse { node_id: "node-1".into(), max_volumes_per_node: 3, ..Default::default() };
        Ok(Response::new(info))
    }
    async fn node_get_capabilities(&self, _: Request<NodeGetCapabilitiesRequest>) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        Ok(Response::new(NodeGetCapabilitiesResponse::default()))
    }
    async fn node_stage_volume(&self, _: Request<NodeStageVolumeRequest>) -> Result<Response<NodeStageVolumeResponse>, Status> {
        Err(Status::unimplemented("no mounts here"))
    }
    async fn node_unstage_volume(&self, _: Request<NodeUnstageVolumeRequest>) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        Err(Status::unimplemented("no mounts here"))
    }
    async fn node_publish_volume(&self, _: Request<NodePublishVolumeRequest>) -> Result<Response<NodePublishVolumeResponse>, Status> {
        Err(Status::unimplemented("no mounts here"))
    }
    async fn node_unpublish_volume(&self, _: Request<NodeUnpublishVolumeRequest>) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        // Nothing is published here.
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }
    async fn node_get_volume_stats(&self, _: Request<NodeGetVolumeStatsRequest>) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        Err(Status::unimplemented("no mounts here"))
    }
    async fn node_get_volume_health(&self, _: Request<NodeGetVolumeHealthRequest>) -> Result<Response<NodeGetVolumeHealthResponse>, Status> {
        Err(Status::unimplemented("no mounts here"))
    }
    async fn node_get_storage_health(&self, _: Request<NodeGetStorageHealthRequest>) -> Result<Response<NodeGetStorageHealthResponse>, Status> {
        Err(Status::unimplemented("no mounts here"))
    }
    async fn node_expand_volume(&self, _: Request<NodeExpandVolumeRequest>) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        Err(Status::unimplemented("no mounts here"))
    }
}
