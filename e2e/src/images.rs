//! Where the checkout, its programs and tools are, and the images that go into every node's containerd.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::node::Node;
use crate::shell;

/// What `IMAGE` in the lab's environment names: busybox with all applets.
pub(crate) const BUSYBOX: &str = "docker.io/outboard/busybox:lab";
/// The hook sidecar of VMs.
pub(crate) const SHIM: &str = "docker.io/outboard/vhostuser-shim:lab";
/// What holds a pod's namespaces.
pub(crate) const PAUSE: &str = "docker.io/outboard/pause:lab";

/// The images of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    /// Test pods on a reference network.
    Plain,
    /// The same, and Outboard's network and CoreDNS.
    Outboard,
    /// The same, and Outboard's storage with its sidecars.
    Storage,
}

/// The image with the sidecars is big, and its pods run on the master alone.
const SIDECARS: &str = "csi-sidecars";

/// The checkout this library was built from.
pub(crate) fn checkout() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .map_or_else(|| here.to_path_buf(), Path::to_path_buf)
}

/// A tool that `make setup` built.
///
/// # Errors
/// It is not there.
pub(crate) fn tool(name: &str) -> Result<String> {
    let script = checkout().join("e2e/tools/setup.sh");
    let dir = shell::run(&[script.as_os_str(), "--print-bin".as_ref()])?;
    let path = format!("{dir}/{name}");
    anyhow::ensure!(
        Path::new(&path).exists(),
        "the lab's tool {path} is not there: run `make setup`"
    );
    Ok(path)
}

/// A program of this build: the directory that the running program comes from has the others.
///
/// # Errors
/// It is not there.
pub(crate) fn program(name: &str) -> Result<String> {
    let own = std::env::current_exe().context("the path of the running program")?;
    let mut dirs = own.ancestors().skip(1);
    let found = dirs
        .by_ref()
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    let path = found.with_context(|| {
        format!(
            "{name} is not built beside {}: run `make build`",
            own.display()
        )
    })?;
    Ok(path.display().to_string())
}

/// Builds the images whose contents changed, those for pods with VMs (`vms`) among them; gives their archives.
///
/// # Errors
/// A program was not built, or buildah fails: the message is its own.
pub(crate) fn build(set: Set, vms: bool) -> Result<Vec<PathBuf>> {
    let script = checkout()
        .join("manifests/images/build.sh")
        .display()
        .to_string();
    let cache = std::env::var_os("OUTBOARD_CACHE").map_or_else(
        || {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()))
                .join(".cache/outboard")
        },
        PathBuf::from,
    );
    let out = cache.join("images").display().to_string();
    let mut argv = vec![script.as_str(), &out, "busybox", "pause"];
    if set != Set::Plain {
        argv.extend(["cni", "coredns"]);
    }
    if set == Set::Storage {
        argv.extend(["csi", "engine", SIDECARS]);
    }
    if vms {
        argv.push("vhostuser-shim");
    }
    let printed = shell::run(&argv)?;
    let archives = printed
        .lines()
        .filter_map(|l| l.split_once('\t'))
        .map(|(_, a)| PathBuf::from(a));
    Ok(archives.collect())
}

/// Puts the archives that a node needs into its containerd.
///
/// # Errors
/// containerd refuses one.
pub(crate) fn import(node: &Node, master: bool, archives: &[PathBuf]) -> Result<()> {
    let of_master = |archive: &&PathBuf| {
        let name = archive.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(SIDECARS)
    };
    for archive in archives
        .iter()
        .filter(|archive| master || !of_master(archive))
    {
        let file = archive.display().to_string();
        node.exec(&["ctr", "-n", "k8s.io", "images", "import", &file])
            .with_context(|| format!("cannot import {file}"))?;
    }
    Ok(())
}
