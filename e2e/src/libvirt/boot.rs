//! What a domain boots, as files of its node: Debian's kernel and the host VM's initramfs.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::QEMU_USER;
use crate::host_vm::initramfs::Kernel;
use crate::node::Node;

/// Of the node.
const DIRECTORY: &str = "/run/outboard-vm";

/// Paths on a node, which QEMU can read.
#[derive(Debug, Clone)]
pub struct Boot {
    /// The kernel's image.
    pub kernel: String,
    /// Runs scripts that come over a virtio port (see [`crate::host_vm`]).
    pub initramfs: String,
    /// What the kernel's command line must have.
    pub command_line: String,
    /// Where sockets and logs of domains may lie: QEMU's user owns it.
    pub directory: String,
}

impl Boot {
    /// Puts the files onto a node, with `programs` of this machine and further `modules` of its kernel in the guest.
    ///
    /// # Errors
    /// The kernel was not fetched, or the node's file system refuses.
    pub fn on(node: &Node, programs: &[PathBuf], modules: &[String]) -> Result<Self> {
        let kernel = Kernel::find()?;
        node.script(&format!(
            "mkdir -p {DIRECTORY} && chown {QEMU_USER}:{QEMU_USER} {DIRECTORY}"
        ))?;
        let put = |name: &str, contents: &[u8]| -> Result<String> {
            let path = format!("{DIRECTORY}/{name}");
            fs::write(node.path(&path), contents)
                .with_context(|| format!("cannot write {path} on node {}", node.name()))?;
            Ok(path)
        };
        let image = kernel.image();
        let image = fs::read(&image).with_context(|| format!("cannot read {}", image.display()))?;
        Ok(Self {
            kernel: put("kernel", &image)?,
            initramfs: put("initramfs", &kernel.initramfs(programs, modules)?)?,
            command_line: "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check".into(),
            directory: DIRECTORY.into(),
        })
    }
}
