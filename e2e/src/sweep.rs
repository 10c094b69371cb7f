//! Ends a lab, from its id alone: also one that was never finished or whose program was killed.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{cgroup, fabric, shell, state, wait};

/// Removes all that lab `id` has on this machine: processes, cgroups, network namespaces, links, state.
///
/// # Errors
/// Something resists; all the rest is gone then, and a second call tries again.
pub(crate) fn remove(id: u8) -> Result<()> {
    // With the last process of a node its mounts go: nothing has to be unmounted.
    let processes = cgroup::remove_lab(id);
    let network = remove_network(id);
    processes?;
    network?;
    let dir = state::dir(id);
    wait::until_true(
        &format!("the removal of {}", dir.display()),
        Duration::from_secs(10),
        || match fs::remove_dir_all(&dir) {
            Err(error) if dir.exists() => {
                Err(error).with_context(|| format!("cannot remove {}", dir.display()))
            }
            _ => Ok(true),
        },
    )
}

fn remove_network(id: u8) -> Result<()> {
    let prefix = fabric::netns_prefix(id);
    let listed = shell::run(&["ip", "netns", "list"])?;
    for name in listed
        .lines()
        .filter_map(|l| l.split(' ').next())
        .filter(|n| n.starts_with(&prefix))
    {
        shell::run(&["ip", "netns", "delete", name])?;
    }
    // Its peer was in a namespace: gone already, or about to be.
    let _ = shell::run(&["ip", "link", "delete", &fabric::root_link(id)]);
    Ok(())
}
