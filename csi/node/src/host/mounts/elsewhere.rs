//! Mounts in other namespaces, as far as /proc shows them (hostPID).

use std::collections::HashSet;
use std::fs;

use super::super::device::Numbers;
use super::{Mount, Table};

/// Where else a disk's file system is mounted, in words: in namespaces that do not hear of an unmount in ours. `ours` is the mount
/// whose unmount they would have to hear of. May block for a moment: it looks at every process.
pub(crate) fn elsewhere(disk: Numbers, ours: &Mount) -> Vec<String> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let mut seen = HashSet::from([namespace("self")]);
    let mut found = Vec::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let Ok(pid) = process.file_name().into_string() else {
            continue;
        };
        if !pid.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let space = namespace(&pid);
        if space.is_none() || !seen.insert(space) {
            continue;
        }
        let text = fs::read(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let table = Table::parse(&text);
        let mut left = table.iter().filter(|mount| {
            let hears = mount.peers.iter().any(|group| ours.peers.contains(group));
            mount.device == disk && !hears
        });
        if let Some(mount) = left.next() {
            let program = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let program = program.trim();
            found.push(format!(
                "{} (of process {pid}, {program})",
                mount.point.display()
            ));
        }
    }
    found
}
