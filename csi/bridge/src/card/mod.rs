//! What a card does for volumes. The bridge decides what is wanted; a card makes it so.

mod error;
pub(crate) mod linux;

use async_trait::async_trait;
use proto::volume::v1::{Device, ExposureKind, FunctionId, Limits, Source, SourceKind};
use tokio::sync::broadcast;
use tokio::time::Instant;
use uuid::Uuid;

pub(crate) use error::{Error, Result};

/// Where a volume's bytes are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Medium {
    /// A source of `outboard.volume.v1`.
    Source(Source),
    /// Nothing: reads are zeroes, writes are lost. Bytes.
    Null(u64),
}

/// How a volume is to be seen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    /// A block device of the card's machine.
    BlockDevice,
    /// A vhost-user-blk socket with so many queues; 0: the card's choice.
    VhostUser(u32),
    /// An NVMe function.
    Nvme(FunctionId),
    /// A virtio-blk function.
    VirtioBlk(FunctionId),
}

impl Shape {
    pub(crate) fn kind(&self) -> ExposureKind {
        match self {
            Shape::BlockDevice => ExposureKind::LocalBlockDevice,
            Shape::VhostUser(_) => ExposureKind::VhostUserBlk,
            Shape::Nvme(_) => ExposureKind::NvmeFunction,
            Shape::VirtioBlk(_) => ExposureKind::VirtioBlkFunction,
        }
    }

    pub(crate) fn function(&self) -> Option<FunctionId> {
        match self {
            Shape::Nvme(id) | Shape::VirtioBlk(id) => Some(*id),
            _ => None,
        }
    }
}

/// What is wanted of a volume's one exposure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exposed {
    /// Full name of the object that wants it.
    pub(crate) by: String,
    /// How.
    pub(crate) shape: Shape,
    /// The same once more as a vhost-user-blk socket with so many queues (0: the card's choice), beside a block device alone.
    pub(crate) socket: Option<u32>,
    /// Nobody may write.
    pub(crate) read_only: bool,
    /// What the host sees, where the shape can carry one.
    pub(crate) serial: String,
}

/// All that is wanted of a volume.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Volume {
    /// Who it is.
    pub(crate) uuid: Uuid,
    /// Where its bytes are.
    pub(crate) medium: Medium,
    /// Opened for reading alone.
    pub(crate) read_only: bool,
    /// What holds for all of its users together.
    pub(crate) limits: Limits,
    /// How it is seen, if it is.
    pub(crate) exposed: Option<Exposed>,
}

/// What a card can do.
#[derive(Debug, Clone)]
pub(crate) struct Abilities {
    /// `linux`, …
    pub(crate) kind: &'static str,
    /// Sources that it connects.
    pub(crate) sources: Vec<SourceKind>,
    /// Exposures that need no function.
    pub(crate) local: Vec<ExposureKind>,
    /// A grown source is taken over while the host uses it.
    pub(crate) online_resize: bool,
    /// Requests wait over a restart of the engine.
    pub(crate) survives_engine_restart: bool,
}

/// A PCI function as it is now.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    pub(crate) id: FunctionId,
    pub(crate) kinds: Vec<ExposureKind>,
    /// As the host sees it; empty where the host has not said.
    pub(crate) pci_address: String,
    /// Volume that is plugged in, by its serial.
    pub(crate) occupied: bool,
}

/// A volume as the card sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    /// Bytes; 0: not known.
    pub(crate) size: u64,
    pub(crate) block_size: u32,
    /// Why it does not serve; none: it does.
    pub(crate) trouble: Option<String>,
    /// The host's end, if there is one.
    pub(crate) device: Option<Device>,
    /// Only if it was asked for.
    pub(crate) in_use: bool,
}

/// What a card tells of its own accord.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    /// The volume's engine is another process: what was open on it is lost where the shape can't wait.
    Lost(Uuid),
    /// Something changed: look again.
    Changed(Uuid),
    /// It serves, but otherwise than it would be brought up now: bring it again.
    Outdated(Uuid),
}

/// A card. Every call is idempotent and takes all that is wanted of the volume, so that a replay is the same call again. What a call
/// has not finished when its deadline passes goes on at the next one.
#[async_trait]
pub(crate) trait Card: Send + Sync + 'static {
    /// What it can do. Constant.
    fn abilities(&self) -> &Abilities;
    /// Opens the volume, exposed to nobody yet; limits hold from then on.
    async fn connect(&self, volume: &Volume, deadline: Instant) -> Result<Look>;
    /// Closes it. It is not exposed any more.
    async fn disconnect(&self, volume: &Volume, deadline: Instant) -> Result<()>;
    /// Makes it seen as `volume.exposed` says, from scratch or again.
    async fn expose(&self, volume: &Volume, deadline: Instant) -> Result<Look>;
    /// Takes `volume.exposed` away. [`Error::InUse`] while somebody has it open, unless `force`.
    async fn unexpose(&self, volume: &Volume, force: bool, deadline: Instant) -> Result<()>;
    /// Takes over the source's size, at least `size`, up to the host. Returns it.
    async fn resize(&self, volume: &Volume, size: u64, deadline: Instant) -> Result<u64>;
    /// Makes `volume.limits` hold, at once.
    async fn limit(&self, volume: &Volume, deadline: Instant) -> Result<()>;
    /// How it is now; changes nothing. `users`: also whether somebody has it open, which may cost a look at all processes.
    async fn look(&self, volume: &Volume, users: bool, deadline: Instant) -> Result<Look>;
    /// Every function as it is now.
    async fn functions(&self, deadline: Instant) -> Result<Vec<Function>>;
    /// Changes exactly when something that the engine held in memory was lost.
    fn epoch(&self) -> String;
    /// Notices from now on.
    fn notices(&self) -> broadcast::Receiver<Notice>;
}
