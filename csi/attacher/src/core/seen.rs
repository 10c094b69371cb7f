//! What the card says about one attachment.

use std::collections::BTreeMap;

use proto::card::v1::SourceState;
use proto::volume::v1::{Device, Epoch};

use super::wanted::{Content, Part, Volume};

/// All of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Seen {
    /// The connected source, if there is one.
    pub(crate) source: Option<Source>,
    /// What is made on it.
    pub(crate) parts: BTreeMap<Part, Content>,
    /// The host's end, if there is one.
    pub(crate) device: Option<HostEnd>,
    /// Why the card could not say whether there is a host's end, if it could not.
    pub(crate) unsaid: Option<String>,
    /// Of the answers; none: the card had nothing to say about a device.
    pub(crate) epoch: Option<Epoch>,
}

/// A connected source.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Source {
    /// What it was made from.
    pub(crate) volume: Volume,
    /// Whether it answers.
    pub(crate) state: SourceState,
    /// Why not.
    pub(crate) message: String,
}

/// The host's end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HostEnd {
    /// As the host sees it.
    pub(crate) device: Device,
    /// Somebody there has it; only if it was asked for.
    pub(crate) in_use: bool,
}

#[cfg(test)]
impl Seen {
    /// The card has nothing of this attachment.
    pub(crate) fn is_nothing(&self) -> bool {
        self.source.is_none() && self.parts.is_empty()
    }
}
