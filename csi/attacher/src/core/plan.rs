//! The steps from what the card has to what it has to have.

use proto::volume::v1::Limits;

use super::seen::Seen;
use super::wanted::{Attached, Content, Part, Volume, Wanted};

/// One call to the card. Each may be repeated.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    CreateSource(Volume),
    SetLimits(Limits),
    Create(Content),
    /// At least so large.
    Resize(u64),
    Delete {
        part: Part,
        force: bool,
    },
    DeleteSource,
}

/// In order; each needs those before it. Empty: the card has what it has to have.
pub(crate) fn plan(wanted: &Wanted, seen: &Seen) -> Vec<Step> {
    match wanted {
        Wanted::Gone { force } => {
            let mut steps = deletions(seen, |_| true, *force);
            steps.extend(seen.source.as_ref().map(|_| Step::DeleteSource));
            steps
        }
        Wanted::Attached(wanted) => attach(wanted, seen),
    }
}

fn attach(wanted: &Attached, seen: &Seen) -> Vec<Step> {
    let mut steps = Vec::new();
    let source = seen.source.as_ref();
    let same = source.is_some_and(|source| source.volume == wanted.volume);
    // From the first part that is not as it has to be on, all is made anew: later parts stand on it. Nobody is thrown out for that.
    let sound = if same { sound(wanted, seen) } else { 0 };
    let kept = |part: Part| wanted.parts[..sound].iter().any(|c| c.part() == part);
    steps.extend(deletions(seen, |part| !kept(part), false));
    if !same {
        steps.extend(source.map(|_| Step::DeleteSource));
        steps.push(Step::CreateSource(wanted.volume.clone()));
    }
    let told = if same { wanted.told } else { Limits::default() };
    if told != wanted.limits {
        steps.push(Step::SetLimits(wanted.limits));
    }
    // A card that has the objects but nothing that the host could see is told once more: it brings it back.
    let whole = sound == wanted.parts.len();
    let again = usize::from(same && whole && is_missing(seen)).min(sound);
    let create = &wanted.parts[sound - again..];
    steps.extend(create.iter().cloned().map(Step::Create));
    // Only what is there can be seen to be too small.
    if whole
        && let Some(end) = &seen.device
        && end.device.size_bytes < wanted.size
    {
        steps.push(Step::Resize(wanted.size));
    }
    steps
}

/// There is no host's end, or one that its engine left without a size.
fn is_missing(seen: &Seen) -> bool {
    let size = seen.device.as_ref().map_or(0, |end| end.device.size_bytes);
    size == 0 && seen.unsaid.is_none()
}

/// How many of the wanted parts, from the first, are there as wanted.
fn sound(wanted: &Attached, seen: &Seen) -> usize {
    wanted
        .parts
        .iter()
        .take_while(|content| seen.parts.get(&content.part()) == Some(*content))
        .count()
}

/// Last made, first deleted.
fn deletions(seen: &Seen, doomed: impl Fn(Part) -> bool, force: bool) -> Vec<Step> {
    let parts = seen.parts.keys().rev().copied();
    parts
        .filter(|part| doomed(*part))
        .map(|part| Step::Delete { part, force })
        .collect()
}
