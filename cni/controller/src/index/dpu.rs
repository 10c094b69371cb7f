//! Dpus as the index keeps them, and where the ports of a node are by them.

use super::Index;
use api::dpu::{Claim, Standing, standings};
use api::names::{self, ANNOTATION_CHASSIS};
use api::{Dpu, DpuSpec, DpuStatus};
use std::collections::BTreeMap;

/// A Dpu.
#[derive(Clone, Debug, PartialEq)]
pub struct DpuEntry {
    /// The object's UID.
    pub uid: String,
    /// Seconds since 1970 of its creation.
    pub created: i64,
    /// Of its spec.
    pub generation: Option<i64>,
    /// Whom it pairs.
    pub spec: DpuSpec,
    /// What the DPU and we say of it.
    pub status: DpuStatus,
}

/// A pair that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Name of the Dpu.
    pub dpu: String,
    /// The node that is the DPU.
    pub dpu_node: String,
}

/// Where the ports of a node, and of its pods, are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The chassis.
    pub chassis: String,
    /// The node itself, if the chassis is that of its DPU.
    pub host: Option<String>,
}

impl From<&Dpu> for DpuEntry {
    fn from(dpu: &Dpu) -> Self {
        Self {
            uid: dpu.metadata.uid.clone().unwrap_or_default(),
            created: Claim::of(dpu).created,
            generation: dpu.metadata.generation,
            spec: dpu.spec.clone(),
            status: dpu.status.clone().unwrap_or_default(),
        }
    }
}

impl Index {
    /// Which Dpus count, by name.
    pub fn standings(&self) -> BTreeMap<&str, Standing<'_>> {
        standings(self.dpus.iter().map(|(name, dpu)| Claim {
            created: dpu.created,
            name,
            spec: &dpu.spec,
        }))
    }

    /// The pairs that count, by host.
    pub(super) fn count_pairs(&self) -> BTreeMap<String, Pair> {
        let standings = self.standings().into_iter();
        let counting = standings.filter(|(_, standing)| *standing == Standing::Counts);
        counting
            .filter_map(|(name, _)| {
                let DpuSpec {
                    dpu_node,
                    host_node,
                    ..
                } = self.dpus.get(name)?.spec.clone();
                let dpu = name.to_owned();
                Some((host_node, Pair { dpu, dpu_node }))
            })
            .collect()
    }

    /// The pair in which `node` is the host.
    pub fn pair_of(&self, host: &str) -> Option<&Pair> {
        self.pairs.get(host)
    }

    /// Where the ports of `node` are: on the chassis of its DPU; without one, where they were, if the node is labelled as a host; else
    /// on its own. None for a host that never had a DPU.
    pub fn place(&self, node: &str) -> Option<Place> {
        let behind = |chassis: String| Place {
            chassis,
            host: Some(node.to_owned()),
        };
        if let Some(pair) = self.pairs.get(node) {
            return Some(behind(names::chassis(&pair.dpu_node)));
        }
        match self.nodes.get(node) {
            Some(entry) if entry.is_host => entry.remembered.clone().map(behind),
            _ => Some(Place {
                chassis: names::chassis(node),
                host: None,
            }),
        }
    }
}

/// What a host without a DPU is told.
pub(crate) fn unpaired(node: &str) -> String {
    format!(
        "no Dpu pairs this host: Node {node} has the label {}={}, and its network is to be on a DPU; create a Dpu with spec.hostNode {node}, or take the label off ({ANNOTATION_CHASSIS} is cni-controller's own memory)",
        names::MODE_LABEL,
        names::MODE_HOST,
    )
}

#[cfg(test)]
mod tests {
    use crate::index::{Dirty, Index, Indexed, Settings};
    use crate::rows::Unit;
    use api::Dpu;
    use k8s_openapi::api::core::v1::{Node, Pod};
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    fn put<K: Indexed + serde::de::DeserializeOwned>(index: &mut Index, object: Value) -> Dirty {
        let mut dirty = Dirty::default();
        let object: K = serde_json::from_value(object).unwrap();
        object.put(index, &mut dirty);
        dirty
    }

    fn dpu(name: &str, dpu: &str, host: &str, status: &Value) -> Value {
        json!({"apiVersion": "iaas.yusur.io/v1", "kind": "Dpu",
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"dpuNode": dpu, "hostNode": host, "address": "198.18.0.12"}, "status": status})
    }

    fn host(name: &str, annotations: &Value) -> Value {
        let labels = json!({"iaas.yusur.io/mode": "host"});
        json!({"metadata": {"name": name, "uid": name, "labels": labels, "annotations": annotations}})
    }

    fn index() -> Index {
        let mut index = Index::new(Settings::default());
        for (name, node) in [("a", "h1"), ("b", "h1"), ("c", "h2"), ("d", "d1")] {
            let pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": name},
                "spec": {"nodeName": node, "containers": []}});
            put::<Pod>(&mut index, pod);
        }
        index
    }

    fn chassis(index: &Index, node: &str) -> Option<(String, bool)> {
        let place = index.place(node)?;
        Some((place.chassis, place.host.as_deref() == Some(node)))
    }

    fn units(dirty: &Dirty) -> BTreeSet<String> {
        dirty.units.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_hosts_ports_are_on_its_dpu_and_stay_there() {
        let mut index = index();
        assert_eq!(chassis(&index, "h1"), Some(("h1".into(), false)));
        // A host that never had a DPU.
        let dirty = put::<Node>(&mut index, host("h1", &json!({})));
        assert_eq!(
            units(&dirty),
            ["node/h1", "pod/ns/a", "pod/ns/b"]
                .map(str::to_owned)
                .into()
        );
        assert_eq!(chassis(&index, "h1"), None);
        // It gets one: its own port and its pods' are planned again, and no others.
        let dirty = put::<Dpu>(&mut index, dpu("p", "d1", "h1", &json!({})));
        assert_eq!(
            units(&dirty),
            ["node/h1", "pod/ns/a", "pod/ns/b"]
                .map(str::to_owned)
                .into()
        );
        assert!(dirty.pairs);
        assert_eq!(chassis(&index, "h1"), Some(("d1".into(), true)));
        assert_eq!(chassis(&index, "d1"), Some(("d1".into(), false)));
        // A heartbeat moves nothing.
        let beat = json!({"lastHeartbeat": "2026-01-01T00:00:10Z"});
        let dirty = put::<Dpu>(&mut index, dpu("p", "d1", "h1", &beat));
        assert!(dirty.pairs && dirty.units.is_empty());
        // Its place is written down, and holds when the Dpu is deleted.
        let memory = json!({"iaas.yusur.io/chassis": "d1"});
        let dirty = put::<Node>(&mut index, host("h1", &memory));
        assert_eq!(units(&dirty), BTreeSet::from(["node/h1".to_owned()]));
        let mut dirty = Dirty::default();
        Dpu::remove((String::new(), "p".into()), &mut index, &mut dirty);
        assert!(dirty.pairs && dirty.units.is_empty(), "{dirty:?}");
        assert_eq!(chassis(&index, "h1"), Some(("d1".into(), true)));
        // Another card.
        put::<Dpu>(&mut index, dpu("q", "d2", "h1", &json!({})));
        assert_eq!(chassis(&index, "h1"), Some(("d2".into(), true)));
        // What is remembered of a node that is no host is not believed.
        let mut dirty = Dirty::default();
        Dpu::remove((String::new(), "q".into()), &mut index, &mut dirty);
        let plain = json!({"metadata": {"name": "h1", "uid": "h1", "annotations": memory}});
        let dirty = put::<Node>(&mut index, plain);
        assert!(dirty.units.contains(&Unit::pod("ns", "a")));
        assert_eq!(chassis(&index, "h1"), Some(("h1".into(), false)));
    }

    #[test]
    fn a_changed_host_moves_both_nodes() {
        let mut index = index();
        put::<Dpu>(&mut index, dpu("p", "d1", "h1", &json!({})));
        let dirty = put::<Dpu>(&mut index, dpu("p", "d1", "h2", &json!({})));
        let expected = ["node/h1", "node/h2", "pod/ns/a", "pod/ns/b", "pod/ns/c"];
        assert_eq!(units(&dirty), expected.map(str::to_owned).into());
        assert_eq!(chassis(&index, "h2"), Some(("d1".into(), true)));
        assert_eq!(chassis(&index, "h1"), Some(("h1".into(), false)));
    }
}
