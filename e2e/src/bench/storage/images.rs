//! Images, made and removed as the back end makes and removes them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::{images, shell};

/// qemu-img.
#[derive(Debug, Clone)]
pub(super) struct Maker {
    program: String,
    dir: PathBuf,
}

impl Maker {
    /// Images come into `dir`.
    pub(super) fn new(dir: &Path) -> Result<Self> {
        Ok(Self {
            program: images::tool("qemu-img")?,
            dir: dir.to_owned(),
        })
    }

    /// A thin image, on disk with its name when this returns.
    pub(super) fn blank(&self, name: &str, bytes: u64) -> Result<(PathBuf, Duration)> {
        self.make(name, &[], Some(bytes))
    }

    /// An empty image over another one.
    pub(super) fn over(&self, name: &str, below: &Path) -> Result<(PathBuf, Duration)> {
        let below = below.display().to_string();
        self.make(name, &["-b", &below, "-F", "qcow2"], None)
    }

    fn make(&self, name: &str, more: &[&str], bytes: Option<u64>) -> Result<(PathBuf, Duration)> {
        let path = self.dir.join(format!("{name}.qcow2"));
        let (text, size) = (path.display().to_string(), bytes.map(|b| b.to_string()));
        let layout = "compat=1.1,lazy_refcounts=off,cluster_size=131072,extended_l2=on";
        let mut argv = vec![&*self.program, "create", "-q", "-f", "qcow2", "-o", layout];
        argv.extend(more);
        argv.push(&text);
        argv.extend(size.as_deref());
        let begun = Instant::now();
        shell::run(&argv)?;
        File::open(&path)?.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        Ok((path, begun.elapsed()))
    }

    /// Removes one.
    pub(super) fn remove(&self, path: &Path) -> Result<Duration> {
        let begun = Instant::now();
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
        File::open(&self.dir)?.sync_all()?;
        Ok(begun.elapsed())
    }
}
