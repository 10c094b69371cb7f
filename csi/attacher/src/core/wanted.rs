//! What the card has to have for an attachment.

use proto::volume::v1::exposure::Kind;
use proto::volume::v1::{Exposure, FunctionId, Limits, Source};

use crate::record::{Goal, Record};

/// The kinds of object that are made on a source, in the order of their making: each needs those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    LocalDevice,
    Subsystem,
    Namespace,
    /// Last, so that the host never sees a controller without its namespace.
    Controller,
    VirtioBlk,
}

/// What such an object is made with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    LocalDevice {
        exposure: Exposure,
        read_only: bool,
        serial: String,
    },
    Subsystem {
        nqn: String,
        serial: String,
    },
    Namespace {
        uuid: String,
    },
    Controller {
        function: Option<FunctionId>,
    },
    VirtioBlk {
        function: Option<FunctionId>,
    },
}

impl Content {
    pub(crate) fn part(&self) -> Part {
        match self {
            Content::LocalDevice { .. } => Part::LocalDevice,
            Content::Subsystem { .. } => Part::Subsystem,
            Content::Namespace { .. } => Part::Namespace,
            Content::Controller { .. } => Part::Controller,
            Content::VirtioBlk { .. } => Part::VirtioBlk,
        }
    }
}

/// What a source is made with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Volume {
    pub(crate) source: Source,
    pub(crate) read_only: bool,
    pub(crate) uuid: String,
}

/// What the card has to have.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wanted {
    /// This.
    Attached(Box<Attached>),
    /// Nothing.
    Gone {
        /// Though the host uses it.
        force: bool,
    },
}

/// A volume at a host.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attached {
    pub(crate) volume: Volume,
    pub(crate) limits: Limits,
    /// What the card was told before.
    pub(crate) told: Limits,
    /// In the order of their making.
    pub(crate) parts: Vec<Content>,
    /// At least; 0: any.
    pub(crate) size: u64,
}

/// The subsystem of a volume that is its host's PCI device.
pub(crate) fn nqn(uuid: &str) -> String {
    format!("nqn.2025-01.cn.yusur.iaas:{uuid}")
}

/// What `record` asks of the card.
pub(crate) fn wanted(record: &Record) -> Wanted {
    if let Goal::Gone { force } = record.goal {
        return Wanted::Gone { force };
    }
    let spec = &record.spec.0;
    let uuid = record.uuid.to_string();
    let function = record.function.as_ref().map(|function| function.0);
    let exposure = spec.exposure.unwrap_or_default();
    let parts = match exposure.kind {
        Some(Kind::NvmeFunction(_)) => vec![
            Content::Subsystem {
                nqn: nqn(&uuid),
                serial: spec.serial.clone(),
            },
            Content::Namespace { uuid: uuid.clone() },
            Content::Controller { function },
        ],
        Some(Kind::VirtioBlkFunction(_)) => vec![Content::VirtioBlk { function }],
        _ => vec![Content::LocalDevice {
            exposure,
            read_only: spec.read_only,
            serial: spec.serial.clone(),
        }],
    };
    let volume = Volume {
        source: spec.source.clone().unwrap_or_default(),
        read_only: spec.read_only,
        uuid,
    };
    Wanted::Attached(Box::new(Attached {
        volume,
        limits: spec.limits.unwrap_or_default(),
        told: record.limits.as_ref().map(|l| l.0).unwrap_or_default(),
        parts,
        size: spec.size_bytes,
    }))
}
