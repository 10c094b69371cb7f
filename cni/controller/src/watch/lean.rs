//! Pods as they are read: nothing is kept of what the index does not look at.
//!
//! Most of a pod's text is managed fields, containers and volumes. A list of 100,000 pods that
//! decodes all of that takes twice the time, and nobody ever reads it.

use k8s_openapi::api::core::v1::{Pod, PodIP, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A Pod with the fields that [`crate::index::PodEntry`] is made of; all others are empty.
#[derive(Clone, Debug)]
pub(super) struct LeanPod(Box<Pod>);

#[derive(Deserialize)]
struct Text {
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    host_network: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIP>>,
}

impl<'de> Deserialize<'de> for LeanPod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        let metadata = ObjectMeta {
            name: text.metadata.name,
            namespace: text.metadata.namespace,
            uid: text.metadata.uid,
            resource_version: text.metadata.resource_version,
            creation_timestamp: text.metadata.creation_timestamp,
            annotations: text.metadata.annotations,
            owner_references: text.metadata.owner_references,
            labels: text.metadata.labels,
            ..ObjectMeta::default()
        };
        let spec = text.spec.map(|spec| PodSpec {
            node_name: spec.node_name,
            host_network: spec.host_network,
            ..PodSpec::default()
        });
        let status = text.status.map(|status| PodStatus {
            phase: status.phase,
            pod_ips: status.pod_ips,
            ..PodStatus::default()
        });
        Ok(Self(Box::new(Pod {
            metadata,
            spec,
            status,
        })))
    }
}

impl Resource for LeanPod {
    type DynamicType = ();
    type Scope = <Pod as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        Pod::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        Pod::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        Pod::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        Pod::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}

impl LeanPod {
    /// The Pod.
    pub(super) fn pod(&self) -> &Pod {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{Indexed as _, PodEntry};
    use serde_json::json;

    #[test]
    fn the_index_takes_the_same_from_a_lean_pod() {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web-0", "namespace": "ns", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"kubevirt.io/migrationJobUID": "m"},
                "annotations": {
                    "kubernetes.io/config.mirror": "mirror",
                    "k8s.v1.cni.cncf.io/networks": "a,b",
                    "k8s.v1.cni.cncf.io/network-status": "[]",
                },
                "ownerReferences": [{
                    "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "vm", "uid": "o", "controller": true,
                }],
                "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {"nodeName": "n1", "hostNetwork": false, "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.5"}, {"ip": "fd00::5"}]},
        });
        let lean: LeanPod = serde_json::from_value(object.clone()).unwrap();
        let whole: Pod = serde_json::from_value(object).unwrap();
        assert_eq!(lean.pod().key(), whole.key());
        assert_eq!(
            lean.meta().resource_version,
            whole.metadata.resource_version
        );
        let entry = PodEntry::from_pod(lean.pod(), true).unwrap();
        assert_eq!(Some(&entry), PodEntry::from_pod(&whole, true).as_ref());
        assert!(
            entry.vm.is_some()
                && entry.migration.is_some()
                && entry.requests.is_some()
                && entry.mirror_uid.is_some()
        );
    }

    #[test]
    fn what_makes_a_pod_have_no_ports_is_read() {
        for (spec, status) in [
            (json!({"nodeName": "n1", "hostNetwork": true}), json!({})),
            (json!({"nodeName": "n1"}), json!({"phase": "Succeeded"})),
            (json!({}), json!({"phase": "Pending"})),
        ] {
            let object =
                json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec, "status": status});
            let lean: LeanPod = serde_json::from_value(object).unwrap();
            assert_eq!(
                PodEntry::from_pod(lean.pod(), false),
                None,
                "{spec} {status}"
            );
        }
    }
}
