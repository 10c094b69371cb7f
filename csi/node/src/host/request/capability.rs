//! `volume_capability`: how the volume is to be used.

use proto::csi::v1::VolumeCapability;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessType, MountVolume};

use super::super::error::Error;
use super::super::filesystem::Kind;
use super::super::mounts::Flags;

/// The most bytes of all mount flags together (CSI specification, "Size Limits").
const FLAGS: usize = 4096;

/// How the volume is to be used.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    /// As what.
    pub(crate) access: Access,
    /// By how many, for what.
    mode: Mode,
}

/// As what a volume is used.
#[derive(Debug, Clone)]
pub(crate) enum Access {
    /// A raw block device.
    Block,
    /// A file system.
    Filesystem {
        /// Which; `None`: the one that is there.
        kind: Option<Kind>,
        /// Mounted how.
        flags: Flags,
    },
}

impl Usage {
    /// Of a request's field.
    pub(crate) fn new(capability: Option<&VolumeCapability>) -> Result<Self, Error> {
        let capability = capability.ok_or_else(|| {
            super::missing("volume_capability", "an access type and an access mode")
        })?;
        let mode = capability.access_mode.as_ref().map(|mode| mode.mode());
        let mode = match mode {
            Some(Mode::Unknown) | None => {
                return Err(super::missing(
                    "volume_capability.access_mode",
                    "one of the modes of the CSI specification",
                ));
            }
            Some(mode) => mode,
        };
        let access = match &capability.access_type {
            Some(AccessType::Block(_)) => Access::Block,
            Some(AccessType::Mount(mount)) => filesystem(mount, mode)?,
            None => {
                return Err(super::missing(
                    "volume_capability.access_type",
                    "`block` or `mount`",
                ));
            }
        };
        Ok(Self { access, mode })
    }

    /// Nobody writes through this use.
    pub(crate) fn reads_only(&self) -> bool {
        let flag = match &self.access {
            Access::Block => false,
            Access::Filesystem { flags, .. } => flags.read_only(),
        };
        flag || matches!(
            self.mode,
            Mode::SingleNodeReaderOnly | Mode::MultiNodeReaderOnly
        )
    }

    /// Other nodes may have the volume at the same time.
    pub(crate) fn on_many_nodes(&self) -> bool {
        matches!(
            self.mode,
            Mode::MultiNodeReaderOnly | Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter
        )
    }

    /// May be published at several paths of this node at once (CSI specification, NodePublishVolume).
    pub(crate) fn at_many_paths(&self) -> bool {
        self.on_many_nodes() || self.mode == Mode::SingleNodeMultiWriter
    }

    /// The mode as the specification spells it.
    pub(crate) fn mode(&self) -> &'static str {
        self.mode.as_str_name()
    }
}

fn filesystem(mount: &MountVolume, mode: Mode) -> Result<Access, Error> {
    if !mount.volume_mount_group.is_empty() {
        return Err(Error::Invalid(
            "volume_capability.mount.volume_mount_group is not supported (VOLUME_MOUNT_GROUP is not \
             announced): leave it out; kubelet applies fsGroup itself"
                .to_owned(),
        ));
    }
    if matches!(
        mode,
        Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter
    ) {
        return Err(Error::Invalid(format!(
            "volume_capability: {} with a file system would destroy it, since ext4 and xfs belong to \
             one node; use volumeMode: Block, or an access mode of one node",
            mode.as_str_name()
        )));
    }
    let bytes: usize = mount.mount_flags.iter().map(String::len).sum();
    if bytes > FLAGS {
        return Err(Error::Invalid(format!(
            "volume_capability.mount.mount_flags has {bytes} bytes: at most {FLAGS} are allowed"
        )));
    }
    let kind = match mount.fs_type.as_str() {
        "" => None,
        name => Some(Kind::named(name).ok_or_else(|| {
            Error::Invalid(format!(
                "volume_capability.mount.fs_type is {name:?}: ext4 and xfs are supported"
            ))
        })?),
    };
    let flags = Flags::parse(mount.mount_flags.iter().map(String::as_str))
        .map_err(|why| Error::Invalid(format!("volume_capability.mount.mount_flags: {why}")))?;
    Ok(Access::Filesystem { kind, flags })
}
