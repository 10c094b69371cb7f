//! One action to the API server.

use super::desired::Verdict;
use super::plan::Action;
use api::Dpu;
use api::names::{ANNOTATION_CHASSIS, GROUP, NODE_DPU_READY, VERSION};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Whose the conditions of Dpus are that we write.
const MANAGER: &str = "cni-controller";

/// Carries it out. An object that is gone needs nothing.
pub(super) async fn apply(client: &Client, action: &Action) -> Result<(), kube::Error> {
    let written = match action {
        Action::Dpu {
            name, conditions, ..
        } => {
            let patch = json!({
                "apiVersion": format!("{GROUP}/{VERSION}"),
                "kind": "Dpu",
                "metadata": {"name": name},
                "status": {"conditions": conditions},
            });
            let params = PatchParams::apply(MANAGER).force();
            let dpus: Api<Dpu> = Api::all(client.clone());
            let applied = dpus
                .patch_status(name, &params, &Patch::Apply(&patch))
                .await;
            applied.map(drop)
        }
        Action::Memory { name, chassis } => {
            let patch = json!({"metadata": {"annotations": {ANNOTATION_CHASSIS: chassis}}});
            let params = PatchParams::default();
            let nodes: Api<Node> = Api::all(client.clone());
            let patched = nodes.patch(name, &params, &Patch::Merge(&patch)).await;
            patched.map(drop)
        }
        Action::Node {
            name,
            verdict,
            since,
        } => {
            let patch = condition(verdict.as_ref(), *since);
            let patch = json!({"status": {"conditions": [patch]}});
            let params = PatchParams::default();
            let nodes: Api<Node> = Api::all(client.clone());
            let patched = nodes
                .patch_status(name, &params, &Patch::Strategic(&patch))
                .await;
            patched.map(drop)
        }
    };
    match written {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}

/// The entry of a strategic merge patch; it is found by its type, and the other conditions stay.
fn condition(verdict: Option<&Verdict>, since: Option<Timestamp>) -> Value {
    let Some(verdict) = verdict else {
        return json!({"$patch": "delete", "type": NODE_DPU_READY});
    };
    let mut condition = json!({
        "type": NODE_DPU_READY,
        "status": verdict.status,
        "reason": verdict.reason,
        "message": verdict.sentence,
        "lastHeartbeatTime": Time(Timestamp::now()),
    });
    if let Some(since) = since {
        condition["lastTransitionTime"] = json!(Time(since));
    }
    condition
}
