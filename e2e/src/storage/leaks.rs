//! What is left of volumes that are gone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::daemons;
use super::host::Host;
use super::loops::Loops;
use super::place::Place;

/// What lies in a directory, in order: no directory, nothing. Hidden files are a journal's own.
pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let visible = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    let mut paths: Vec<_> = visible.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Everything that is left, a sentence for each.
pub(super) fn of(place: &Place, hosts: &[Host], loops: &Loops) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let mut look = |what: &str, dir: PathBuf| {
        for path in files(&dir) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // Records that can't be read are set aside there.
            let aside = name == "corrupt" && files(&path).is_empty();
            let card = what == "record of the card" && name.starts_with("card");
            if !aside && !card {
                left.push(format!("{what}: {}", path.display()));
            }
        }
    };
    let volumes = &place.volumes;
    look("image", volumes.join("images"));
    for kind in ["volumes", "snapshots", "groups", "files"] {
        look(
            "record of the back end",
            volumes.join("catalogue").join(kind),
        );
    }
    look("record of csi-controller", place.state().join("volumes"));
    for host in hosts {
        let at = &host.place;
        look("record of the engine", at.engine_state().join("records"));
        look("directory of a daemon", at.engine_state().join("daemons"));
        look("export", at.exports());
        look("record of opi-bridge", at.bridge_state().join("objects"));
        look("record of the card", at.bridge_state().join("linux"));
        look("attachment", at.attacher_state().join("attachments"));
        look("note of a format", at.run().join("formatting"));
        look("mount point", at.run().join("mounts"));
    }
    let daemons = daemons::below(&place.dir);
    left.extend(daemons.iter().map(|pid| format!("daemon: process {pid}")));
    let loops = loops.left();
    left.extend(
        loops
            .iter()
            .map(|it| format!("loop device: {} over {}", it.path.display(), it.file)),
    );
    for host in hosts {
        let mounts = host.namespace.mounts(&place.dir)?;
        let mounts = mounts
            .iter()
            .filter(|mount| mount.point != host.place.kubelet());
        left.extend(mounts.map(|mount| {
            format!(
                "mount of {}: {} ({})",
                host.name,
                mount.point.display(),
                mount.kind
            )
        }));
    }
    Ok(left)
}
