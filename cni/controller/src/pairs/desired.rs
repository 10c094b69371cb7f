//! What should be said of each Dpu and of each Node: pure.

use super::heartbeat::{LOST, Pulse, Pulses};
use crate::index::{DpuEntry, Index, NodeEntry, unpaired};
use api::dpu::{HOST_SEEN, Standing};
use api::{DpuSpec, names};
use std::collections::BTreeMap;

/// What a condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// One CamelCase word.
    pub reason: &'static str,
    /// Names object, cause and remedy.
    pub sentence: String,
}

/// What is said of a Dpu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpuSays {
    /// Whether its two nodes are a pair by it.
    pub paired: Verdict,
    /// Whether the host's pods can have their network.
    pub ready: Verdict,
}

/// What is said of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSays {
    /// The chassis that its ports are to stay on when no Dpu names it any more.
    pub remembered: Option<String>,
    /// How its DPU is; none for a node that is no host.
    pub ready: Option<Verdict>,
}

/// Everything that should be said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Of Dpus, by name.
    pub dpus: BTreeMap<String, DpuSays>,
    /// Of Nodes, by name.
    pub nodes: BTreeMap<String, NodeSays>,
}

/// The reason of a host that no Dpu names.
const NO_DPU: &str = "NoDpu";

impl Verdict {
    fn new(status: &'static str, reason: &'static str, sentence: String) -> Self {
        Self {
            status,
            reason,
            sentence,
        }
    }

    fn no(reason: &'static str, sentence: String) -> Self {
        Self::new("False", reason, sentence)
    }
}

impl NodeSays {
    /// Whether it is a host that no Dpu names.
    pub fn is_unpaired(&self) -> bool {
        let reason = self.ready.as_ref().map(|verdict| verdict.reason);
        reason == Some(NO_DPU)
    }
}

/// What should be said by what is known.
pub fn desired(index: &Index, pulses: &Pulses) -> Desired {
    let standings = index.standings();
    let dpus: BTreeMap<String, DpuSays> = index
        .dpus
        .iter()
        .map(|(name, dpu)| {
            let standing = standings.get(name.as_str());
            let paired = paired(index, name, &dpu.spec, standing);
            let pulse = pulses.get(&dpu.uid).copied().unwrap_or(Pulse::Never);
            let ready = ready(dpu, &paired, pulse);
            (name.clone(), DpuSays { paired, ready })
        })
        .collect();
    let nodes = index
        .nodes
        .iter()
        .map(|(name, node)| (name.clone(), node_says(index, &dpus, name, node)))
        .collect();
    Desired { dpus, nodes }
}

fn node_says(
    index: &Index,
    dpus: &BTreeMap<String, DpuSays>,
    name: &str,
    node: &NodeEntry,
) -> NodeSays {
    if let Some(pair) = index.pair_of(name) {
        return NodeSays {
            remembered: Some(names::chassis(&pair.dpu_node)),
            ready: dpus.get(&pair.dpu).map(|says| says.ready.clone()),
        };
    }
    if node.is_host {
        return NodeSays {
            remembered: node.remembered.clone(),
            ready: Some(Verdict::no(NO_DPU, unpaired(name))),
        };
    }
    NodeSays {
        remembered: None,
        ready: None,
    }
}

fn paired(index: &Index, name: &str, spec: &DpuSpec, standing: Option<&Standing<'_>>) -> Verdict {
    let DpuSpec {
        dpu_node,
        host_node,
        ..
    } = spec;
    if let Some(Standing::Beaten { node, by }) = standing {
        let sentence = format!(
            "Node {node} is in the pair of the older Dpu {by} already, and a node is in one pair only: delete one of the two Dpus"
        );
        return Verdict::no("Beaten", sentence);
    }
    let missing = [dpu_node, host_node]
        .into_iter()
        .find(|node| !index.nodes.contains_key(*node));
    if let Some(node) = missing {
        let sentence = format!(
            "Dpu {name} names Node {node}, which does not exist: let it join the cluster, or correct the Dpu"
        );
        return Verdict::no("NoSuchNode", sentence);
    }
    let sentence = format!("DPU {dpu_node} serves host {host_node} by this Dpu");
    Verdict::new("True", "Paired", sentence)
}

fn ready(dpu: &DpuEntry, paired: &Verdict, pulse: Pulse) -> Verdict {
    let DpuSpec {
        dpu_node,
        host_node,
        ..
    } = &dpu.spec;
    if paired.status != "True" {
        return Verdict::no("NotPaired", paired.sentence.clone());
    }
    let heartbeat = dpu.status.last_heartbeat.as_ref();
    match (pulse, heartbeat) {
        (Pulse::Beats, _) => {}
        (Pulse::Lost, Some(last)) => {
            let sentence = format!(
                "DPU {dpu_node} has not said since {} that it lives: is it up, and does the DaemonSet cni-node-dpu run there?",
                last.0
            );
            return Verdict::no(LOST, sentence);
        }
        (Pulse::Never, _) | (Pulse::Lost, None) => {
            let sentence = format!(
                "DPU {dpu_node} has not said yet that it lives: does the DaemonSet cni-node-dpu run there (label {}={})?",
                names::MODE_LABEL,
                names::MODE_DPU
            );
            return Verdict::new("Unknown", "NotReported", sentence);
        }
    }
    let mut seen = dpu.status.conditions.iter();
    let seen = seen.find(|condition| condition.type_ == HOST_SEEN);
    if seen.is_none_or(|seen| seen.status != "True") {
        let why = seen.map_or("it has not reported of it yet", |seen| &seen.message);
        let sentence = format!(
            "host {host_node} has no session with DPU {dpu_node}: {why}; does the DaemonSet cni-node-host run on the host?"
        );
        return Verdict::no("HostNotSeen", sentence);
    }
    if let Some(functions) = dpu.status.functions
        && functions.total == 0
    {
        let sentence = format!(
            "the card of DPU {dpu_node} has no function for host {host_node}: make virtual functions on the host (sriov_numvfs), or correct spec.controller"
        );
        return Verdict::no("NoFunctions", sentence);
    }
    let sentence = format!("DPU {dpu_node} serves host {host_node}");
    Verdict::new("True", "Serving", sentence)
}
