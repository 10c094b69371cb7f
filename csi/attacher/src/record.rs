//! What the journal keeps of an attachment: what is wanted of it, and what its host was told.

use proto::attacher::v1::AttachmentSpec;
use proto::volume::v1::{Device, Epoch, FunctionId, Limits};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::Id;
use crate::wire::Wire;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// The host has it.
    Attached,
    /// The host has it no more.
    Gone {
        /// Though the host uses it.
        force: bool,
    },
}

/// The host's device died.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lost {
    /// Cause and remedy.
    pub(crate) sentence: String,
    /// The address that it had.
    pub(crate) address: String,
    /// The host was seen to have let go of it.
    pub(crate) released: bool,
}

/// One attachment. Written before the first step, removed after the last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The host.
    pub(crate) host: String,
    /// The volume.
    pub(crate) uuid: Uuid,
    /// As asked for, with defaults filled in.
    pub(crate) spec: Wire<AttachmentSpec>,
    /// Never used twice.
    pub(crate) generation: u64,
    /// What is wanted.
    pub(crate) goal: Goal,
    /// The function that is reserved for it.
    pub(crate) function: Option<Wire<FunctionId>>,
    /// Limits that the card was told last; none: it was told nothing.
    pub(crate) limits: Option<Wire<Limits>>,
    /// The caller was told that it is attached, at least once.
    pub(crate) acknowledged: bool,
    /// Set while the host's device is dead.
    pub(crate) lost: Option<Lost>,
    /// What the host has.
    pub(crate) device: Option<Wire<Device>>,
    /// Which life of the card `device` belongs to.
    pub(crate) epoch: Option<Wire<Epoch>>,
}

impl Record {
    /// A new one, with nothing done yet.
    pub(crate) fn new(id: &Id, spec: AttachmentSpec, generation: u64) -> Self {
        Self {
            host: id.host.clone(),
            uuid: id.uuid,
            spec: Wire(spec),
            generation,
            goal: Goal::Attached,
            function: None,
            limits: None,
            acknowledged: false,
            lost: None,
            device: None,
            epoch: None,
        }
    }

    pub(crate) fn id(&self) -> Id {
        Id {
            host: self.host.clone(),
            uuid: self.uuid,
        }
    }
}
