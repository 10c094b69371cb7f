//! STATUS and /readyz of a host: can an ADD be served, and if not, do the pods that run still have their network?

use channel::LinkState;

use super::node::HostNode;
use crate::error::Error;
use crate::status::{Complaint, answer};

/// Serves a STATUS (CNI specification, section "STATUS"): 50, or 51 when running pods are touched, too.
pub(crate) fn status(node: &HostNode) -> Result<(), Error> {
    let pods = node
        .store
        .all()
        .iter()
        .any(|record| record.sandbox().is_some());
    answer(complaints(node), pods)
}

/// The sentences alone, for /readyz.
pub(crate) fn sentences(node: &HostNode) -> Vec<String> {
    let complaints = complaints(node).into_iter();
    complaints.map(|complaint| complaint.what).collect()
}

fn complaints(node: &HostNode) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let state = node.link.state();
    let state = state.borrow();
    if let Some(what) = state.why_not() {
        // Pods keep what they have while the DPU only does not answer; whether it does, nobody here knows.
        complaints.push(Complaint { what, limits: true });
    }
    if let LinkState::Up { troubles, .. } = &*state {
        complaints.extend(troubles.iter().map(|trouble| Complaint {
            what: format!("on the DPU, {}", trouble.sentence),
            limits: trouble.limits,
        }));
    }
    drop(state);
    if !*node.recovered.borrow() {
        complaints.push(Complaint {
            what: "what was left before the start is not cleaned up yet".to_owned(),
            limits: false,
        });
    }
    complaints
}
