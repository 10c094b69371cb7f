//! Which Dpu is a DPU's own, written down for the API server: a policy on Events can look nothing up but the one object that its binding
//! names (manifests/base/admission-dpu.yaml).

use crate::index::Index;
use api::dpu::Standing;
use api::names::{DPU_DIRECTORY, SYSTEM_NAMESPACE};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

const MANAGER: &str = "cni-controller";

/// By the DPU's node: `<name>/<uid>` of its Dpu.
pub type Entries = BTreeMap<String, String>;

/// What was written last.
#[derive(Debug, Default)]
pub(super) struct Directory {
    written: Option<(Entries, Instant)>,
}

/// Every DPU of a pair that counts.
pub fn entries(index: &Index) -> Entries {
    let standings = index.standings().into_iter();
    let counting = standings.filter(|(_, standing)| *standing == Standing::Counts);
    counting
        .filter_map(|(name, _)| {
            let dpu = index.dpus.get(name)?;
            let entry = format!("{name}/{}", dpu.uid);
            Some((dpu.spec.dpu_node.clone(), entry))
        })
        .collect()
}

impl Directory {
    /// Writes it if it says something new, or was written longer ago than `period`: somebody may have changed it.
    pub(super) async fn write(
        &mut self,
        client: &Client,
        entries: Entries,
        period: Duration,
    ) -> Result<(), kube::Error> {
        let now = Instant::now();
        let is_written =
            |(written, at): &(Entries, Instant)| *written == entries && now - *at < period;
        if self.written.as_ref().is_some_and(is_written) {
            return Ok(());
        }
        let document = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": DPU_DIRECTORY, "namespace": SYSTEM_NAMESPACE},
            "data": entries,
        });
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        let params = PatchParams::apply(MANAGER).force();
        maps.patch(DPU_DIRECTORY, &params, &Patch::Apply(&document))
            .await?;
        self.written = Some((entries, now));
        Ok(())
    }

    /// Another leader writes it now.
    pub(super) fn forget(&mut self) {
        self.written = None;
    }
}
