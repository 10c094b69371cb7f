//! The loop devices of a chain. One whose daemon died says `/` for its file as soon as the dead mount is taken away, and belongs to
//! nobody then: so those that say what they are over are remembered, each by its life.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A loop device, and what it is over now.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) path: PathBuf,
    pub(super) file: String,
}

/// Those whose files lie, or lay, below one directory.
#[derive(Debug)]
pub(super) struct Loops {
    dir: String,
    /// The sequence number of a device's life, by its name.
    known: Mutex<BTreeMap<String, u64>>,
}

impl Loops {
    pub(super) fn below(dir: &Path) -> Self {
        Self {
            dir: format!("{}/", dir.display()),
            known: Mutex::default(),
        }
    }

    /// Remembers those that are there. To be done before anything dies.
    pub(super) fn look(&self) {
        let all = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for name in all.filter_map(|entry| entry.file_name().into_string().ok()) {
            let ours = file(&name).is_some_and(|file| file.starts_with(&self.dir));
            if let Some(life) = life(&name).filter(|_| ours) {
                known.insert(name, life);
            }
        }
    }

    /// Those that are still there, dead ones too.
    pub(super) fn left(&self) -> Vec<Loop> {
        self.look();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let same = known
            .iter()
            .filter(|(name, seen)| life(name) == Some(**seen));
        same.filter_map(|(name, _)| {
            Some(Loop {
                path: Path::new("/dev").join(name),
                file: file(name)?,
            })
        })
        .collect()
    }
}

fn file(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok()?;
    Some(text.trim_end().to_owned())
}

fn life(name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/sys/block/{name}/diskseq")).ok()?;
    text.trim().parse().ok()
}
