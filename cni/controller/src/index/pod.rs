//! Pods as the index keeps them: what they ask for, and what they report.

use api::names::{
    ANNOTATION_IPS, ANNOTATION_MAC, ANNOTATION_MIRROR, ANNOTATION_NETWORK_IPS,
    ANNOTATION_NETWORK_STATUS, ANNOTATION_NETWORKS, LABEL_MIGRATION_UID,
};
use k8s_openapi::api::core::v1::Pod;
use std::net::IpAddr;

/// A pod that is to have ports: scheduled, not in its host's network, not completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEntry {
    /// The UID that CNI_ARGS carries: the object's, or the static pod's for a mirror pod.
    pub uid: Box<str>,
    /// The object's own UID where that is another one.
    pub mirror_uid: Option<Box<str>>,
    /// The node it is bound to.
    pub node: Box<str>,
    /// The virtual machine it runs, if it is KubeVirt's.
    pub vm: Option<Box<str>>,
    /// UID of the migration that it says it is the target of. Only for a VM's pod.
    pub migration: Option<Box<str>>,
    /// What it asks for; none for most pods.
    pub requests: Option<Box<Requests>>,
    /// What it reports.
    pub reports: Reports,
    /// Seconds since 1970 of its creation.
    pub created: i64,
}

/// Annotations with requests, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Addresses for eth0.
    pub ips: Option<String>,
    /// MAC address for eth0.
    pub mac: Option<String>,
    /// Secondary networks.
    pub networks: Option<String>,
    /// Addresses for the secondary networks of a VM.
    pub network_ips: Option<String>,
}

/// What kubelet and Multus say of its addresses: read on the disaster path alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    /// `status.podIPs`.
    pub pod_ips: Box<[IpAddr]>,
    /// The annotation network-status, if it is to be kept.
    pub network_status: Option<Box<str>>,
}

impl PodEntry {
    /// The entry, or none if the pod is to have no ports (now, or any more).
    ///
    /// A pod that is being deleted keeps its ports until the object is gone: its containers may
    /// still want to say goodbye, and kubelet deletes the sandbox before it lets the object go.
    pub fn from_pod(pod: &Pod, keep_reports: bool) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let node = spec.node_name.as_deref().filter(|node| !node.is_empty())?;
        if spec.host_network == Some(true) {
            return None;
        }
        let status = pod.status.as_ref();
        if let Some("Succeeded" | "Failed") = status.and_then(|s| s.phase.as_deref()) {
            return None;
        }
        let annotation = |key: &str| {
            let annotations = pod.metadata.annotations.as_ref()?;
            annotations.get(key).filter(|value| !value.is_empty())
        };
        let object_uid = pod.metadata.uid.as_deref()?;
        let uid = annotation(ANNOTATION_MIRROR).map_or(object_uid, String::as_str);
        let requests = Requests {
            ips: annotation(ANNOTATION_IPS).cloned(),
            mac: annotation(ANNOTATION_MAC).cloned(),
            networks: annotation(ANNOTATION_NETWORKS).cloned(),
            network_ips: annotation(ANNOTATION_NETWORK_IPS).cloned(),
        };
        let pod_ips = status.and_then(|s| s.pod_ips.as_ref());
        let network_status = annotation(ANNOTATION_NETWORK_STATUS).filter(|_| keep_reports);
        let vm = owner_vm(pod);
        let labels = pod.metadata.labels.as_ref().filter(|_| vm.is_some());
        let migration = labels.and_then(|labels| labels.get(LABEL_MIGRATION_UID));
        Some(Self {
            uid: uid.into(),
            mirror_uid: (uid != object_uid).then(|| object_uid.into()),
            node: node.into(),
            vm: vm.map(Into::into),
            migration: migration.map(|uid| uid.as_str().into()),
            requests: (requests != Requests::default()).then(|| Box::new(requests)),
            reports: Reports {
                pod_ips: pod_ips
                    .into_iter()
                    .flatten()
                    .filter_map(|ip| ip.ip.parse().ok())
                    .collect(),
                network_status: network_status.map(|status| status.as_str().into()),
            },
            created: pod
                .metadata
                .creation_timestamp
                .as_ref()
                .map_or(0, |time| time.0.as_second()),
        })
    }

    /// The object's own UID, for Events.
    pub fn object_uid(&self) -> &str {
        self.mirror_uid.as_deref().unwrap_or(&self.uid)
    }

    /// The value of the annotation with the secondary networks.
    pub fn networks(&self) -> Option<&str> {
        self.requests.as_ref()?.networks.as_deref()
    }

    /// Whether the rows of both are the same.
    pub(super) fn same_wants(&self, other: &Self) -> bool {
        self.uid == other.uid
            && self.node == other.node
            && self.vm == other.vm
            && self.migration == other.migration
            && self.requests == other.requests
    }
}

/// Name of the VirtualMachineInstance that controls the pod.
fn owner_vm(pod: &Pod) -> Option<&str> {
    pod.metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| {
            owner.kind == "VirtualMachineInstance"
                && owner.controller == Some(true)
                && owner.api_version.starts_with("kubevirt.io/")
        })
        .map(|owner| owner.name.as_str())
}
