//! What has to be written so that everything is said as it should be: pure.

use super::desired::{Desired, DpuSays, NodeSays, Verdict};
use crate::index::{DpuEntry, Index, NodeEntry};
use api::dpu::{PAIRED, READY};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use std::fmt;

/// One thing to write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Our conditions of a Dpu.
    Dpu {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// Both, with their times.
        conditions: Vec<Condition>,
        /// What people are to be told.
        news: Vec<Verdict>,
    },
    /// The memory of a Node: where its ports are.
    Memory {
        /// Its name.
        name: String,
        /// The chassis; none: it is to be forgotten.
        chassis: Option<String>,
    },
    /// Our condition of a Node.
    Node {
        /// Its name.
        name: String,
        /// None: it is to go.
        verdict: Option<Verdict>,
        /// When it became so; none: it has been so before.
        since: Option<Timestamp>,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dpu {
                name, conditions, ..
            } => {
                write!(f, "Dpu {name}:")?;
                conditions.iter().try_for_each(|condition| {
                    let Condition {
                        type_,
                        status,
                        reason,
                        ..
                    } = condition;
                    write!(f, " {type_}={status} ({reason})")
                })
            }
            Self::Memory {
                name,
                chassis: Some(chassis),
            } => write!(f, "Node {name}: its ports are on chassis {chassis}"),
            Self::Memory {
                name,
                chassis: None,
            } => write!(f, "Node {name}: its ports are on its own chassis"),
            Self::Node {
                name,
                verdict: Some(verdict),
                ..
            } => write!(
                f,
                "Node {name}: its DPU is ready: {} ({})",
                verdict.status, verdict.reason
            ),
            Self::Node {
                name,
                verdict: None,
                ..
            } => write!(f, "Node {name}: it has no DPU to speak of"),
        }
    }
}

/// What to write, at `now`. First what must not be forgotten.
pub fn plan(index: &Index, desired: &Desired, now: Timestamp) -> Vec<Action> {
    let of_node = |name: &String| index.nodes.get(name);
    let nodes = || {
        let nodes = desired.nodes.iter();
        nodes.filter_map(|(name, says)| Some((name, says, of_node(name)?)))
    };
    let memories = nodes().filter_map(|(name, says, node)| memory(name, says, node));
    let dpus = desired.dpus.iter().filter_map(|(name, says)| {
        let dpu = index.dpus.get(name)?;
        conditions(name, says, dpu, now)
    });
    let conditions = nodes().filter_map(|(name, says, node)| condition(name, says, node, now));
    memories.chain(dpus).chain(conditions).collect()
}

fn memory(name: &str, says: &NodeSays, node: &NodeEntry) -> Option<Action> {
    (says.remembered != node.remembered).then(|| Action::Memory {
        name: name.to_owned(),
        chassis: says.remembered.clone(),
    })
}

fn condition(name: &str, says: &NodeSays, node: &NodeEntry, now: Timestamp) -> Option<Action> {
    let same = match (&says.ready, &node.dpu_ready) {
        (None, None) => true,
        (Some(verdict), Some(said)) => {
            (verdict.status, verdict.reason, verdict.sentence.as_str())
                == (&*said.status, &*said.reason, &*said.message)
        }
        _ => false,
    };
    let status_before = node.dpu_ready.as_ref().map(|said| said.status.as_str());
    let status_after = says.ready.as_ref().map(|verdict| verdict.status);
    (!same).then(|| Action::Node {
        name: name.to_owned(),
        verdict: says.ready.clone(),
        since: (status_before != status_after).then_some(now),
    })
}

fn conditions(name: &str, says: &DpuSays, dpu: &DpuEntry, now: Timestamp) -> Option<Action> {
    let mut changed = false;
    let mut news = Vec::new();
    let mut conditions = Vec::new();
    for (type_, verdict) in [(PAIRED, &says.paired), (READY, &says.ready)] {
        let all = &dpu.status.conditions;
        let before = all.iter().find(|condition| condition.type_ == type_);
        let transition = before
            .filter(|before| before.status == verdict.status)
            .map_or(Time(now), |before| before.last_transition_time.clone());
        let condition = Condition {
            type_: type_.to_owned(),
            status: verdict.status.to_owned(),
            reason: verdict.reason.to_owned(),
            message: verdict.sentence.clone(),
            observed_generation: dpu.generation,
            last_transition_time: transition,
        };
        if before != Some(&condition) {
            changed = true;
        }
        // A pair that is none says so once, not in both.
        let repeats = type_ == READY && says.paired.status != "True";
        let is_new = before.is_none_or(|before| before.message != verdict.sentence);
        if verdict.status == "False" && is_new && !repeats {
            news.push(verdict.clone());
        }
        conditions.push(condition);
    }
    changed.then(|| Action::Dpu {
        name: name.to_owned(),
        uid: dpu.uid.clone(),
        conditions,
        news,
    })
}
