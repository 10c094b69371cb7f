use proto::node::v1::host_agent_client::HostAgentClient;
use proto::node::v1::host_volumes_client::HostVolumesClient;
use proto::node::v1::*;
use tonic::Code;

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_what_the_certificate_says() {
    let world = World::new().await;
    let mut controller = world.controller().await;
    controller.list(ListRequest::default()).await.unwrap();
    let described = HostAgentClient::new(world.channel("n1"))
        .describe(DescribeRequest::default())
        .await;
    assert_eq!(described.unwrap().into_inner().host, "n1");
    for (name, says) in [
        ("n1", "node n1: only csi-controller may"),
        ("n2", "n2, 127.0.0.1: only csi-controller may"),
        ("csi-controller", "only csi-controller may"),
    ] {
        let mut client = HostVolumesClient::new(world.channel(name));
        let says = says.replace(", 127.0.0.1", "");
        refused(
            client.attach(world.volume()).await,
            Code::PermissionDenied,
            &says,
        );
        let detach = DetachRequest {
            id: id("n1"),
            ..DetachRequest::default()
        };
        refused(client.detach(detach).await, Code::PermissionDenied, &says);
    }
    for name in ["system:csi-controller", "n2"] {
        let mut client = HostAgentClient::new(world.channel(name));
        let repair = RepairRequest {
            volume_uuid: UUID.to_owned(),
            ..RepairRequest::default()
        };
        refused(
            client.repair(repair).await,
            Code::PermissionDenied,
            "only the csi-node-host",
        );
    }
    // Each unix socket is one role's.
    let mut client = HostVolumesClient::new(proto::uds::channel(world.path("d/host.sock")));
    refused(client.attach(world.volume()).await, Code::Unimplemented, "");
    let mut client = HostVolumesClient::new(proto::uds::channel(world.path("d/controller.sock")));
    client.list(ListRequest::default()).await.unwrap();
}
