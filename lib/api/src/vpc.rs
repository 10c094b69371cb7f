//! The custom resource Vpc: an isolated logical router.

#![expect(
    unreachable_pub,
    reason = "the derives write pub items into closed modules"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A private network of its own: a logical router with the Subnets that name it.
///
/// VPCs do not reach each other. The VPC `default` is the cluster's: nodes, Services and the way
/// out belong to it. Pods in another VPC have no Services of the cluster, no way out and get no
/// probes by network from kubelet.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "iaas.yusur.io",
    version = "v1",
    kind = "Vpc",
    plural = "vpcs",
    category = "outboard",
    status = "VpcStatus",
    derive = "PartialEq",
    doc = "A private network of its own: a logical router with the Subnets that name it.",
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63")
        .message("the name of a Vpc is a DNS label: up to 63 lower-case letters, digits and dashes"),
    printcolumn(name = "Subnets", type_ = "string", json_path = ".status.subnets"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct VpcSpec {}

/// What became of a Vpc.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VpcStatus {
    /// Names of its Subnets.
    #[serde(default)]
    pub subnets: Vec<String>,
    /// `Ready`: its rows are in OVN. `Egress`: whether its pods reach the outside.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
