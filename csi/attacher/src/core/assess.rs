//! Where an attachment stands, and whether the host lost what it held.

use proto::attacher::v1::State;
use proto::card::v1::SourceState;
use proto::volume::v1::Device;
use proto::volume::v1::device::Address;

use super::seen::Seen;
use crate::record::{Goal, Lost, Record};
use crate::wire::Wire;

/// State and sentence for `record`, when the card says `seen`.
pub(crate) fn assess(record: &Record, seen: &Seen) -> (State, String) {
    if let Goal::Gone { .. } = record.goal {
        let why = "it is being taken from the host; repeat Detach until it answers OK";
        return (State::Detaching, why.to_owned());
    }
    let trouble = match (&seen.source, &seen.device) {
        (None, _) => Some("the card does not have its source; it is being made again".to_owned()),
        (Some(source), _) if source.state != SourceState::Connected => Some(format!(
            "its source is {}: {}",
            word(source.state),
            if source.message.is_empty() {
                "the card says no more; look at the target and the way to it"
            } else {
                &source.message
            }
        )),
        (_, None) => Some(match &seen.unsaid {
            Some(why) => format!("the host's device can't be looked at: {why}"),
            None => "the host's device is not there; it is being made again".to_owned(),
        }),
        (_, Some(end)) if end.device.size_bytes == 0 => Some(
            "the host's device has no size: its engine is away; it is being repaired".to_owned(),
        ),
        _ => None,
    };
    match (trouble, &record.lost) {
        (Some(why), _) if !record.acknowledged => (State::Attaching, why),
        (_, Some(lost)) => (State::Lost, lost.sentence.clone()),
        (Some(why), None) => (State::Degraded, why),
        (None, None) if !record.acknowledged => (State::Attaching, String::new()),
        (None, None) => (State::Attached, String::new()),
    }
}

fn word(state: SourceState) -> &'static str {
    match state {
        SourceState::Connecting => "being connected",
        SourceState::Reconnecting => "lost and being connected again, requests wait",
        SourceState::Failed => "lost, requests fail, and it is being connected again",
        SourceState::Connected | SourceState::Unspecified => "in an unknown state",
    }
}

/// Whether [`noted`] has to know who uses the device; the card is not asked for it otherwise.
pub(crate) fn asks_for_users(record: &Record, seen: &Seen, survives: bool) -> bool {
    seen.unsaid.is_none()
        && seen.device.is_some()
        && (record.lost.is_some() || (record.acknowledged && is_another(record, seen, survives)))
}

/// Whether the device is not the one that the record remembers, or not the same life of it.
fn is_another(record: &Record, seen: &Seen, survives: bool) -> bool {
    let now = seen.device.as_ref().map(|end| address(&end.device));
    let (Some(before), Some(now)) = (&record.device, &now) else {
        return false;
    };
    let restarted = record.epoch.as_ref().map(|e| &e.0) != seen.epoch.as_ref() && !survives;
    restarted || address(&before.0) != *now
}

/// The record after the card said `seen`: which device and life it is now, and whether the host lost the one before. `survives`: requests
/// wait over a restart of this card's engine.
///
/// A restart that nobody told us of (this program was not running) shows by another epoch or another address: then what the host held
/// is dead, unless somebody has the device open now.
pub(crate) fn noted(mut record: Record, seen: &Seen, survives: bool) -> Record {
    if seen.unsaid.is_some() {
        return record;
    }
    let in_use = seen.device.as_ref().is_some_and(|end| end.in_use);
    let now = seen.device.as_ref().map(|end| address(&end.device));
    let another = is_another(&record, seen, survives);
    if record.acknowledged && record.lost.is_none() && !in_use && another {
        record.lost = Some(lost(&record, "the card's engine was started again"));
    }
    if let Some(lost) = &mut record.lost {
        lost.released |= !in_use;
        let anew = in_use && (lost.released || now.as_ref().is_some_and(|a| *a != lost.address));
        if anew {
            record.lost = None;
        }
    }
    if let Some(end) = &seen.device {
        record.device = Some(Wire(end.device.clone()));
        record.epoch = seen.epoch.clone().map(Wire);
    }
    record
}

/// What is told of a device that died by `cause`.
pub(crate) fn lost(record: &Record, cause: &str) -> Lost {
    Lost {
        sentence: format!(
            "{cause}: what host {} held open of volume {} is dead and gives I/O errors; it must be unmounted and opened anew",
            record.host, record.uuid
        ),
        address: record
            .device
            .as_ref()
            .map(|d| address(&d.0))
            .unwrap_or_default(),
        released: false,
    }
}

fn address(device: &Device) -> String {
    match &device.address {
        Some(Address::Path(at) | Address::SocketPath(at) | Address::PciAddress(at)) => at.clone(),
        None => String::new(),
    }
}
