//! What is checked before a mount: ext4 by `e2fsck -p`, which replays the journal and repairs what is safe to repair; xfs
//! by the kernel, which replays its log at the mount. Never more: a file system that needs decisions is a person's.

use super::super::child;
use super::super::device::Device;
use super::super::error::Error;
use super::Kind;

/// e2fsck(8): errors corrected; a reboot is advised (for a root file system).
const CORRECTED: i32 = 1 | 2;
/// e2fsck(8): errors left uncorrected.
const LEFT: i32 = 4;

/// Checks a file system that is not mounted.
pub(crate) async fn check(device: &Device, kind: Kind) -> Result<(), Error> {
    if kind == Kind::Xfs {
        return Ok(());
    }
    e2fsck(device, &["-p"]).await
}

/// Checks an ext4 that is not mounted from end to end, as is needed before it grows.
pub(super) async fn check_all(device: &Device) -> Result<(), Error> {
    e2fsck(device, &["-p", "-f"]).await
}

async fn e2fsck(device: &Device, options: &[&str]) -> Result<(), Error> {
    let pinned = device.pinned();
    let args: Vec<&str> = options.iter().copied().chain([&*pinned]).collect();
    let ended = child::run_alone("e2fsck", &args).await?;
    let path = device.path();
    let path = path.display();
    match ended.code {
        Some(0) => Ok(()),
        Some(code) if code & !CORRECTED == 0 => {
            tracing::warn!(device = %path, "e2fsck repaired the file system: {}", ended.out.trim());
            Ok(())
        }
        Some(code) if code & LEFT != 0 => Err(Error::Refused(format!(
            "{path}: its ext4 has errors that are not safe to repair unseen ({}); repair it by hand with \
             `e2fsck {path}` on this node, or restore a snapshot",
            ended.verdict()
        ))),
        _ => Err(Error::Unavailable(format!(
            "e2fsck can't check {path} ({}); repeat",
            ended.verdict()
        ))),
    }
}
