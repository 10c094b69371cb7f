//! What the engine keeps on disk.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Recipe;
use crate::place::Place;

/// The durable wish for a daemon, by id. It is there before the daemon and goes after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) owner: String,
    pub(crate) recipe: Recipe,
    pub(crate) revision: u64,
    /// True once its removal was asked for: there is no way back.
    pub(crate) removing: bool,
}

/// Which process has been through its recipe: a restarted engine must know whether the one that it finds serves. It
/// need not survive the machine, which takes the process along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Served {
    pub(crate) epoch: String,
    pub(crate) revision: u64,
}

impl Served {
    pub(crate) fn read(place: &Place) -> Option<Self> {
        // A file that is not whole, or of another format, says nothing.
        serde_json::from_slice(&std::fs::read(place.served()).ok()?).ok()
    }

    pub(crate) fn write(&self, place: &Place) -> io::Result<()> {
        let path = place.served();
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, serde_json::to_vec(self)?)?;
        std::fs::rename(&temporary, &path)
    }
}

/// The last line of a log that says something, of what was written from `start` on; at most some KiB are read.
pub(crate) fn last_line(log: &Path, start: u64) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    const TAIL: u64 = 4096;
    let mut file = std::fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    // A log that was begun anew is shorter than it was.
    let start = if start > length { 0 } else { start };
    file.seek(SeekFrom::Start(start.max(length.saturating_sub(TAIL))))
        .ok()?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail).ok()?;
    let text = String::from_utf8_lossy(&tail);
    let line = text.lines().rfind(|line| !line.trim().is_empty())?;
    Some(line.trim().chars().take(500).collect())
}
