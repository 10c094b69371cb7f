//! What is to be undone or given back, given what is there. Pure.
//!
//! An attachment that is not whole at a time when nobody works on it was cut off: nobody was told that it is there. One that is whole and
//! whose function is at home was robbed of it: by its pod's end, or by the card, which has it again.

use std::collections::{BTreeMap, BTreeSet};

use crate::attachment::AttachmentId;
use crate::host::function::FunctionId;

/// Everything of ours that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// The journal.
    pub(crate) records: Vec<Seen>,
    /// Where the card's functions are; one that is missing is not on the card.
    pub(crate) places: BTreeMap<FunctionId, Place>,
}

/// An attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) id: AttachmentId,
    /// Its interface was complete once.
    pub(crate) whole: bool,
    pub(crate) function: FunctionId,
    pub(crate) pod: PodState,
}

/// Whose an attachment is, and whether that is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PodState {
    /// The host itself.
    Host,
    /// A pod whose namespace is there.
    Alive,
    /// A pod whose namespace is not at its path any more.
    Gone,
}

/// Where a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the host's namespace.
    Home {
        /// Under the name that it has there.
        tidy: bool,
    },
    /// In a pod, or on its way home.
    Away,
    /// It has no link: a VM has it, or could.
    Vfio,
}

/// One step towards order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Detach an attachment: the function home, the DPU told, the record dropped.
    Remove(AttachmentId),
    /// Put an attachment's function into its pod, as it was.
    Place(AttachmentId),
    /// Give a function that nobody has its name.
    Restore(FunctionId),
}

/// The steps.
pub(crate) fn plan(observed: &Observed) -> Vec<Action> {
    let mut actions = Vec::new();
    for seen in &observed.records {
        let place = observed.places.get(&seen.function);
        let id = || seen.id.clone();
        match (seen.whole, seen.pod, place) {
            (false, ..) | (true, PodState::Gone, Some(Place::Home { .. } | Place::Vfio)) => {
                actions.push(Action::Remove(id()));
            }
            (true, PodState::Alive, Some(Place::Home { .. })) => actions.push(Action::Place(id())),
            (true, ..) => {}
        }
    }
    let held: BTreeSet<FunctionId> = observed.records.iter().map(|seen| seen.function).collect();
    let astray = observed
        .places
        .iter()
        .filter(|(id, place)| **place == Place::Home { tidy: false } && !held.contains(*id));
    actions.extend(astray.map(|(id, _)| Action::Restore(*id)));
    actions
}
