//! Outboard's Kubernetes API: custom resources, names and the facts that ride on OVN rows.
//!
//! What two programs must agree on, and nothing else: no input or output, no client. The programs
//! on both sides of a wire (the API server, the northbound and the southbound database) take the
//! spelling of every key from here.

pub mod dpu;
mod layout;
mod mac;
mod machine;
mod migration;
mod nad;
pub mod names;
pub mod pairing;
mod plugged;
mod port;
mod selection;
pub mod storage;
mod subnet;
mod vpc;

pub use dpu::{Dpu, DpuSpec, DpuStatus, Functions};
pub use layout::{AddressRange, Layout, LayoutError};
pub use mac::{Mac, MacError};
pub use machine::{machine_ifname, request_network_ips};
pub use migration::{
    MigrationStage, VirtualMachineInstanceMigration, VirtualMachineInstanceMigrationSpec,
};
pub use nad::{
    NadError, NetworkAttachmentDefinition, NetworkAttachmentDefinitionSpec, OutboardNetwork,
};
pub use plugged::{
    PLUGGED_FORMAT, PLUGGED_KEY, PluggedError, PluggedPort, is_plugged_key, plugged_key,
    plugged_kind_key,
};
pub use port::{
    FactError, MigrationTarget, NodeFacts, PodPort, PortFacts, Role, Route, TAG_HOST, TAG_IFNAME,
    TAG_POD, TAG_ROLE, TAG_TARGET, TAG_TARGET_UID, TAG_UID,
};
pub use selection::{Selection, SelectionError, selections};
pub use subnet::{Subnet, SubnetSpec, SubnetStatus, Usage};
pub use vpc::{Vpc, VpcSpec, VpcStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// The definitions that `manifests/crds` carries, with the file name (without `.yaml`) of each.
pub fn crds() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
        ("vpcs", Vpc::crd()),
        ("subnets", Subnet::crd()),
        ("dpus", Dpu::crd()),
    ]
}
