//! Ends a lab, from its id alone: also one that was never finished or whose program was killed.

mod loops;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{cgroup, dpdk, fabric, shell, state, wait};

/// What a sweep that was cut off must still take away.
const LOOPS: &str = "loops.json";

/// Removes all that lab `id` has on this machine: processes (the storage daemons among them), cgroups, loop devices, network
/// namespaces, links, huge pages, state.
///
/// # Errors
/// Something resists; all the rest is gone then, and a second call tries again.
pub(crate) fn remove(id: u8) -> Result<()> {
    let dir = state::dir(id);
    // Whose they are can be seen only while there are processes.
    let loops = remember_loops(id, &dir);
    // With the last process of a node its mounts go: nothing has to be unmounted.
    let processes = cgroup::remove_lab(id);
    let loops = loops.and_then(|loops| loops::detach(&loops));
    let network = remove_network(id);
    let pages = dpdk::release(&dir);
    processes?;
    loops?;
    network?;
    pages?;
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

/// The lab's loop devices, noted in its state for a second call.
fn remember_loops(id: u8, dir: &Path) -> Result<Vec<loops::Loop>> {
    let file = dir.join(LOOPS);
    let noted = fs::read(&file).unwrap_or_default();
    let mut all: Vec<loops::Loop> = serde_json::from_slice(&noted).unwrap_or_default();
    let found = loops::of_lab(id, &cgroup::pids(id)?)?;
    all.extend(
        found
            .into_iter()
            .filter(|one| !all.contains(one))
            .collect::<Vec<_>>(),
    );
    if !all.is_empty() && dir.exists() {
        fs::write(&file, serde_json::to_vec(&all)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(all)
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
