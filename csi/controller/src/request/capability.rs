//! `volume_capability`: how a volume is to be used. The one place that says which uses there are.
//!
//! | access mode | file system | raw block |
//! |---|---|---|
//! | SINGLE_NODE_* | yes | yes |
//! | MULTI_NODE_READER_ONLY | yes | yes |
//! | MULTI_NODE_SINGLE_WRITER, MULTI_NODE_MULTI_WRITER | no: ext4 and xfs belong to one node | yes |
//!
//! MULTI_NODE_* only where the backend exports a volume to several hosts.

use framework::{Access, Capabilities};
use proto::csi::v1::VolumeCapability;
use proto::csi::v1::volume_capability::AccessType;
use proto::csi::v1::volume_capability::access_mode::Mode;

use super::{invalid, missing, text};
use crate::status::Answer;

/// The most bytes of all mount flags together (CSI specification, "Size Limits").
const FLAGS: usize = 4096;
/// What csi-node-host can make and mount.
const FILE_SYSTEMS: [&str; 2] = ["ext4", "xfs"];

/// How a volume is to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Usage {
    /// As a raw device, not with a file system.
    pub(crate) block: bool,
    /// With this one; empty: the node chooses.
    file_system: String,
    /// A group that shall own the files.
    group: bool,
    mode: Mode,
}

impl Usage {
    /// Of the field `field`: its form. Whether it can be had is `supported`.
    pub(crate) fn new(field: &str, capability: Option<&VolumeCapability>) -> Answer<Self> {
        let capability =
            capability.ok_or_else(|| missing(field, "an access type and an access mode"))?;
        let mode = match capability.access_mode.as_ref().map(|mode| mode.mode()) {
            Some(Mode::Unknown) | None => {
                let what = "one of the modes of the CSI specification";
                return Err(missing(&format!("{field}.access_mode"), what));
            }
            Some(mode) => mode,
        };
        let mut usage = Self {
            block: true,
            file_system: String::new(),
            group: false,
            mode,
        };
        match &capability.access_type {
            None => {
                return Err(missing(
                    &format!("{field}.access_type"),
                    "`block` or `mount`",
                ));
            }
            Some(AccessType::Block(_)) => {}
            Some(AccessType::Mount(mount)) => {
                text(&format!("{field}.mount.fs_type"), &mount.fs_type)?;
                text(
                    &format!("{field}.mount.volume_mount_group"),
                    &mount.volume_mount_group,
                )?;
                let bytes: usize = mount.mount_flags.iter().map(String::len).sum();
                if bytes > FLAGS {
                    return Err(invalid(format!(
                        "{field}.mount.mount_flags has {bytes} bytes: at most {FLAGS} are allowed"
                    )));
                }
                usage.block = false;
                usage.file_system.clone_from(&mount.fs_type);
                usage.group = !mount.volume_mount_group.is_empty();
            }
        }
        Ok(usage)
    }

    /// All of a repeated field, which has at least one.
    pub(crate) fn all(field: &str, capabilities: &[VolumeCapability]) -> Answer<Vec<Self>> {
        if capabilities.is_empty() {
            return Err(missing(field, "at least one"));
        }
        let usages = capabilities.iter().enumerate();
        usages
            .map(|(n, one)| Self::new(&format!("{field}[{n}]"), Some(one)))
            .collect()
    }

    /// Whether a volume of such a backend can be used so; why not, otherwise.
    pub(crate) fn supported(&self, backend: Capabilities) -> Result<(), String> {
        let mode = self.mode.as_str_name();
        if self.group {
            return Err("volume_mount_group is not supported (VOLUME_MOUNT_GROUP is not announced): leave it out; \
                        kubelet applies fsGroup itself"
                .to_owned());
        }
        let file_system = self.file_system.as_str();
        if !file_system.is_empty() && !FILE_SYSTEMS.contains(&file_system) {
            return Err(format!(
                "fs_type is {file_system:?}: ext4 and xfs are supported, or leave it out"
            ));
        }
        if !self.block
            && matches!(
                self.mode,
                Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter
            )
        {
            return Err(format!(
                "{mode} with a file system would destroy it, since ext4 and xfs belong to one node; use \
                 volumeMode: Block, or an access mode of one node"
            ));
        }
        if self.multi() && !backend.multi {
            return Err(format!(
                "{mode}: this backend exports a volume to one host only; use a mode of one node"
            ));
        }
        Ok(())
    }

    /// The same as INVALID_ARGUMENT.
    pub(crate) fn check(&self, field: &str, backend: Capabilities) -> Answer<()> {
        self.supported(backend)
            .map_err(|why| invalid(format!("{field}: {why}")))
    }

    /// Several nodes may have the volume at the same time.
    pub(crate) fn multi(&self) -> bool {
        matches!(
            self.mode,
            Mode::MultiNodeReaderOnly | Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter
        )
    }

    /// What the host may do; `readonly` is that of the publish call.
    pub(crate) fn access(&self, readonly: bool) -> Access {
        let reads = matches!(
            self.mode,
            Mode::SingleNodeReaderOnly | Mode::MultiNodeReaderOnly
        );
        if reads || readonly {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        }
    }

    /// Of the nodes that have the volume one may write.
    pub(crate) fn single_writer(&self) -> bool {
        self.mode == Mode::MultiNodeSingleWriter
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::csi::v1::volume_capability::{AccessMode, BlockVolume, MountVolume};

    fn usage(block: bool, mode: Mode) -> Usage {
        let access = if block {
            AccessType::Block(BlockVolume {})
        } else {
            AccessType::Mount(MountVolume::default())
        };
        let capability = VolumeCapability {
            access_type: Some(access),
            access_mode: Some(AccessMode { mode: mode.into() }),
        };
        Usage::new("volume_capability", Some(&capability)).unwrap()
    }

    #[test]
    fn several_nodes_write_raw_block_alone() {
        let multi = Capabilities {
            multi: true,
            ..Capabilities::default()
        };
        for mode in (1..=7).map(|n| Mode::try_from(n).unwrap()) {
            let writers = matches!(
                mode,
                Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter
            );
            assert_eq!(
                usage(false, mode).supported(multi).is_ok(),
                !writers,
                "{mode:?}"
            );
            assert!(usage(true, mode).supported(multi).is_ok(), "{mode:?}");
            let one = usage(true, mode).supported(Capabilities::default());
            assert_eq!(one.is_ok(), !usage(true, mode).multi(), "{mode:?}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let of = |capability: Option<&VolumeCapability>| {
            Usage::new("volume_capability", capability)
                .unwrap_err()
                .message()
                .to_owned()
        };
        assert!(of(None).starts_with("volume_capability is missing"));
        let mut capability = VolumeCapability::default();
        assert!(of(Some(&capability)).starts_with("volume_capability.access_mode is missing"));
        capability.access_mode = Some(AccessMode { mode: 42 });
        assert!(of(Some(&capability)).starts_with("volume_capability.access_mode is missing"));
        capability.access_mode = Some(AccessMode { mode: 1 });
        assert!(of(Some(&capability)).starts_with("volume_capability.access_type is missing"));
        let mount_flags = vec!["x".repeat(2048), "y".repeat(2049)];
        let mount = MountVolume {
            mount_flags,
            ..MountVolume::default()
        };
        capability.access_type = Some(AccessType::Mount(mount));
        assert!(of(Some(&capability)).contains("mount_flags has 4097 bytes"));
        assert!(Usage::all("volume_capabilities", &[]).is_err());
    }
}
