//! Objects written into etcd directly, many at once: the API server's own POST is slower than what is measured behind it.

use anyhow::{Context as _, Result};
use api::names::{DEFAULT_SUBNET, GROUP, VERSION};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::stopwatch::Stopwatch;
use crate::node::Node;

/// How many requests one curl makes, over a few connections.
const BATCH: usize = 2000;
const URL: &str = "http://127.0.0.1:2379/v3/kv";

/// The lab's etcd.
pub(super) struct Etcd {
    curl: Stopwatch,
}

/// An object and its key.
pub(super) type Object = (String, Value);

impl Etcd {
    pub(super) fn of(master: &Node) -> Result<Self> {
        Ok(Self {
            curl: Stopwatch::inside(master)?,
        })
    }

    /// Writes objects, in no order.
    ///
    /// Each gets a revision of its own: a watch of the API server that is cut and resumed goes on after a revision, and
    /// would lose what is left of one that has several objects.
    ///
    /// # Errors
    /// etcd does not answer.
    pub(super) fn put(&mut self, objects: impl Iterator<Item = Object>) -> Result<()> {
        self.post(
            "put",
            objects.map(
                |(key, object)| json!({"key": encode(&key), "value": encode(&object.to_string())}),
            ),
        )
    }

    /// Removes objects, as [`Self::put`].
    ///
    /// # Errors
    /// etcd does not answer.
    pub(super) fn delete(&mut self, keys: impl Iterator<Item = String>) -> Result<()> {
        self.post("deleterange", keys.map(|key| json!({"key": encode(&key)})))
    }

    fn post(&mut self, what: &str, bodies: impl Iterator<Item = Value>) -> Result<()> {
        let request = |body: Value| {
            let body = body.to_string().replace('"', "\\\"");
            format!("url = \"{URL}/{what}\"\ndata = \"{body}\"\noutput = \"/dev/null\"\nfail\n")
        };
        let mut requests = bodies.map(request).peekable();
        while requests.peek().is_some() {
            let batch: Vec<String> = requests.by_ref().take(BATCH).collect();
            let argv = [
                "curl",
                "-sS",
                "-Z",
                "--parallel-max",
                "8",
                "--no-progress-meter",
                "-K",
                "-",
            ];
            self.curl
                .run(&argv, &batch.join("next\n"))
                .context("etcd does not take it")?;
        }
        Ok(())
    }
}

fn encode(text: &str) -> String {
    STANDARD.encode(text)
}

/// The subnet `default`.
pub(super) fn subnet(cidrs: &[&str]) -> Object {
    let object = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Subnet",
        "metadata": {"name": DEFAULT_SUBNET, "uid": "00000000-0000-4000-8004-000000000000",
            "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"cidrs": cidrs, "natOutgoing": true},
    });
    (
        format!("/registry/{GROUP}/subnets/{DEFAULT_SUBNET}"),
        object,
    )
}

/// A Node that no kubelet stands for.
pub(super) fn node(name: &str, number: u32) -> Object {
    let uid = format!("00000000-0000-4000-8001-{number:012x}");
    let object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "spec": {},
        "status": {"addresses": [
            {"type": "InternalIP", "address": address(number)}, {"type": "Hostname", "address": name},
        ]},
    });
    (format!("/registry/minions/{name}"), object)
}

/// A pod of namespace `bench`, bound to a node; of the size that a small real one has.
pub(super) fn pod(name: &str, number: u32, node: &str) -> Object {
    let uid = format!("00000000-0000-4000-8002-{number:012x}");
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": super::cluster::NAMESPACE, "uid": uid,
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "bench", "tier": "web"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "bench",
                "uid": "00000000-0000-4000-8003-000000000000", "controller": true, "blockOwnerDeletion": true}]},
        "spec": {"nodeName": node, "serviceAccountName": "default", "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "web", "image": "example/web:1", "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
        "status": {"phase": "Pending", "qosClass": "Burstable", "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    (pod_key(name), object)
}

/// Where a pod of namespace `bench` is.
pub(super) fn pod_key(name: &str) -> String {
    format!("/registry/pods/{}/{name}", super::cluster::NAMESPACE)
}

fn address(number: u32) -> String {
    let [_, a, b, c] = number.to_be_bytes();
    format!("172.{}.{b}.{c}", 16 + (a & 15))
}
