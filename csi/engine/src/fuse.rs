//! Mounts that a killed daemon left.

use std::path::PathBuf;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::Recipe;

/// Takes away the dead FUSE mounts on the mount points that a recipe exports to: a new export can't be mounted on them.
/// Their end is an error for whoever still has files in them open, and was so before.
pub(crate) fn clear(recipe: &Recipe) {
    for path in mount_points(recipe) {
        // A dead mount answers so. (stat may be answered from the kernel's cache for a second.)
        while nix::sys::statfs::statfs(&path).err() == Some(Errno::ENOTCONN) {
            if let Err(why) = umount2(&path, MntFlags::MNT_DETACH) {
                tracing::warn!(mount = %path.display(), "can't unmount what a killed daemon left: {why}");
                break;
            }
            tracing::info!(mount = %path.display(), "unmounted what a killed daemon left");
        }
    }
}

fn mount_points(recipe: &Recipe) -> impl Iterator<Item = PathBuf> + '_ {
    recipe.steps().iter().filter_map(|step| {
        let text = |key: &str| step.arguments.get(key)?.as_str();
        (step.execute == "block-export-add" && text("type") == Some("fuse"))
            .then(|| text("mountpoint").map(PathBuf::from))?
    })
}
