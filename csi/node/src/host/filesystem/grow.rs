//! Growing a mounted file system to the size of its disk.

use std::ffi::OsStr;
use std::path::Path;

use super::super::child;
use super::super::device::{self, Device, Found};
use super::super::error::Error;
use super::{Kind, superblock};

/// Less than this at a disk's end is nothing to grow into.
const BLOCK: u64 = 4096;

/// Whether the file system on a disk is smaller than its disk (a clone that is larger than its source; a resize that was
/// cut off). May block.
pub(crate) fn is_smaller(disk: &Found, kind: Kind) -> Result<bool, Error> {
    let head = device::head(&disk.name, disk.numbers)?;
    let size = superblock::bytes(kind, &head);
    Ok(size.is_some_and(|size| size + BLOCK <= disk.bytes))
}

/// Whether this program may grow a file system that is mounted: the kernel asks CAP_SYS_RESOURCE for ext4's.
pub(crate) fn may_grow_mounted(kind: Kind) -> bool {
    const SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    kind == Kind::Xfs || effective.is_some_and(|set| set >> SYS_RESOURCE & 1 == 1)
}

/// Grows the ext4 of a disk that is not mounted to the whole disk. It has to be checked from end to end for that.
pub(crate) async fn grow_unmounted(device: &Device) -> Result<(), Error> {
    let pinned = device.pinned();
    super::check::check_all(device).await?;
    done("resize2fs", Kind::Ext4, &device.path(), [pinned.as_ref()]).await
}

/// Grows what is mounted at `point`, from the disk `path`, to the whole disk. Nothing to grow is no error.
pub(crate) async fn grow(kind: Kind, path: &Path, point: &Path) -> Result<(), Error> {
    if !may_grow_mounted(kind) {
        return Err(Error::Refused(format!(
            "the {kind} at {} can't be grown while it is mounted, since csi-node-host has no CAP_SYS_RESOURCE: \
             run it privileged, or end the pods of the volume: it grows when it is staged again",
            point.display()
        )));
    }
    match kind {
        Kind::Ext4 => done("resize2fs", kind, point, [path.as_os_str()]).await,
        Kind::Xfs => {
            done(
                "xfs_growfs",
                kind,
                point,
                ["-d".as_ref(), point.as_os_str()],
            )
            .await
        }
    }
}

async fn done<const N: usize>(
    program: &'static str,
    kind: Kind,
    place: &Path,
    args: [&OsStr; N],
) -> Result<(), Error> {
    let ended = child::run(program, args).await?;
    if ended.code == Some(0) {
        return Ok(());
    }
    Err(Error::Unavailable(format!(
        "{program} could not grow the {kind} at {} ({}); the data is whole, and the call may be repeated",
        place.display(),
        ended.verdict()
    )))
}
