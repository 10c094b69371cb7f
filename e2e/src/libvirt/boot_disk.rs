//! A disk from which a BIOS boots what a domain otherwise gets from libvirt: GRUB in front, kernel and initramfs behind it. There is no file
//! system: GRUB reads both files by their blocks.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::Boot;
use crate::node::Node;
use crate::shell;

const GRUB: &str = "/usr/lib/grub/i386-pc";
const SECTOR: usize = 512;
/// Of the first file; what is before it is GRUB's.
const FILES: usize = 2048;

impl Boot {
    /// Writes an image of such a disk into the directory; gives its path on the node. It boots with the same command line.
    ///
    /// # Errors
    /// GRUB is not installed, or the node's file system refuses.
    pub fn disk(&self, node: &Node) -> Result<String> {
        ensure!(
            Path::new(GRUB).join("boot.img").exists(),
            "{GRUB}/boot.img is not there: run `make setup`"
        );
        let read = |path: &str| {
            fs::read(node.path(path))
                .with_context(|| format!("cannot read {path} on node {}", node.name()))
        };
        let (kernel, initramfs) = (read(&self.kernel)?, small(&read(&self.initramfs)?)?);
        let sectors = |file: &[u8]| file.len().div_ceil(SECTOR);
        let script = format!(
            "linux (hd0){FILES}+{} {}\ninitrd (hd0){}+{}\nboot\n",
            sectors(&kernel),
            self.command_line,
            FILES + sectors(&kernel),
            sectors(&initramfs),
        );
        let mut image = fs::read(Path::new(GRUB).join("boot.img"))?;
        image.extend(core(&script)?);
        ensure!(
            image.len() <= FILES * SECTOR,
            "GRUB is larger than its place"
        );
        image.resize(FILES * SECTOR, 0);
        for file in [kernel, initramfs] {
            image.extend(file);
            image.resize(image.len().next_multiple_of(SECTOR), 0);
        }
        let path = format!("{}/boot-disk.img", self.directory);
        fs::write(node.path(&path), image)
            .with_context(|| format!("cannot write {path} on node {}", node.name()))?;
        Ok(path)
    }
}

/// Compressed: a BIOS reads 32 KiB at a time, and waits for each with the machine's only processor.
fn small(initramfs: &[u8]) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir().context("a directory for the initramfs")?;
    let path = dir.path().join("initramfs");
    fs::write(&path, initramfs).with_context(|| format!("cannot write {}", path.display()))?;
    shell::run(&["gzip", &path.display().to_string()])?;
    fs::read(path.with_extension("gz")).context("gzip has left no file")
}

/// GRUB's own part, with the script in it, to be right behind its boot sector.
fn core(script: &str) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir().context("a directory for GRUB")?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (config, made) = (path("early.cfg"), path("core.img"));
    fs::write(&config, script).with_context(|| format!("cannot write {config}"))?;
    let how = ["--format=i386-pc", "--prefix=(hd0)/", "--directory", GRUB];
    let files = ["--config", &config, "--output", &made];
    let modules = ["biosdisk", "linux"];
    shell::run(&[&["grub-mkimage"][..], &how, &files, &modules].concat())?;
    fs::read(&made).with_context(|| format!("cannot read {made}"))
}
