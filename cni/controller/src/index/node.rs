//! Nodes as the index keeps them.

use k8s_openapi::api::core::v1::Node;
use std::net::IpAddr;

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// The object's UID.
    pub uid: String,
    /// Name of its chassis.
    pub chassis: String,
    /// Its own addresses (InternalIP), as kubelet reports them.
    pub addresses: Vec<IpAddr>,
}

impl From<&Node> for NodeEntry {
    fn from(node: &Node) -> Self {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let addresses = node.status.as_ref().and_then(|s| s.addresses.as_ref());
        Self {
            uid: node.metadata.uid.clone().unwrap_or_default(),
            chassis: api::names::chassis(name),
            addresses: addresses
                .into_iter()
                .flatten()
                .filter(|address| address.type_ == "InternalIP")
                .filter_map(|address| address.address.parse().ok())
                .collect(),
        }
    }
}
