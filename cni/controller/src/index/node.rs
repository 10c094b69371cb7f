//! Nodes as the index keeps them.

use api::names::{ANNOTATION_CHASSIS, MODE_HOST, MODE_LABEL, NODE_DPU_READY};
use k8s_openapi::api::core::v1::Node;
use std::net::IpAddr;

/// A Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeEntry {
    /// The object's UID.
    pub uid: String,
    /// Its own addresses (InternalIP), as kubelet reports them.
    pub addresses: Vec<IpAddr>,
    /// Its network is on a DPU, says its label.
    pub is_host: bool,
    /// The chassis that its ports were on when a Dpu last named it.
    pub remembered: Option<String>,
    /// What we said last of its DPU.
    pub dpu_ready: Option<Said>,
}

/// A condition without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One CamelCase word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl From<&Node> for NodeEntry {
    fn from(node: &Node) -> Self {
        let status = node.status.as_ref();
        let addresses = status.and_then(|s| s.addresses.as_ref());
        let label = |key: &str| node.metadata.labels.as_ref()?.get(key);
        let annotation = |key: &str| node.metadata.annotations.as_ref()?.get(key);
        let conditions = status.and_then(|s| s.conditions.as_ref());
        let ours = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == NODE_DPU_READY);
        Self {
            uid: node.metadata.uid.clone().unwrap_or_default(),
            addresses: addresses
                .into_iter()
                .flatten()
                .filter(|address| address.type_ == "InternalIP")
                .filter_map(|address| address.address.parse().ok())
                .collect(),
            is_host: label(MODE_LABEL).is_some_and(|mode| mode == MODE_HOST),
            remembered: annotation(ANNOTATION_CHASSIS)
                .filter(|chassis| !chassis.is_empty())
                .cloned(),
            dpu_ready: ours.map(|condition| Said {
                status: condition.status.clone(),
                reason: condition.reason.clone().unwrap_or_default(),
                message: condition.message.clone().unwrap_or_default(),
            }),
        }
    }
}
