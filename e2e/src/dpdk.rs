//! Open vSwitch with DPDK on a node: for VMs, whose ports are vhost-user sockets.
//!
//! DPDK keeps packets in huge pages. They are the machine's: a lab asks the kernel for as many as its nodes need, notes that, and gives
//! them back at its end. There is no PCI device for DPDK here, so of its ports only vhost-user ones are polled (by one thread,
//! as long as there is such a port); all others are served as in the build without DPDK.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{Flock, FlockArg};

use crate::node::Node;
use crate::state;

/// The build; the alternative `ovs-vswitchd` is the one without DPDK.
const PROGRAM: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
/// How many huge pages of 2 MiB the kernel has.
const PAGES: &str = "/proc/sys/vm/nr_hugepages";
/// Of one node: 128 MiB from the start, and about 60 MiB for each port of its MTU.
const PAGES_OF_NODE: usize = 320;
/// In the lab's state directory: how many pages it asked for.
const NOTE: &str = "hugepages";

/// Asks the kernel for the huge pages of so many nodes.
///
/// # Errors
/// It has not as much memory in one piece; then it has as few as before.
pub(crate) fn reserve(lab: &Path, nodes: usize) -> Result<()> {
    if nodes == 0 {
        return Ok(());
    }
    ensure!(
        Path::new(PROGRAM).exists(),
        "{PROGRAM} is not there: run `make setup`"
    );
    let wanted = nodes * PAGES_OF_NODE;
    let _guard = lock()?;
    let before = pages()?;
    // Before they are there: who is cut off in between gives back what it had not.
    fs::write(lab.join(NOTE), wanted.to_string())
        .with_context(|| format!("cannot write into {}", lab.display()))?;
    set(before + wanted)?;
    let got = pages()?;
    if got < before + wanted {
        set(before)?;
        let _ = fs::remove_file(lab.join(NOTE));
        anyhow::bail!(
            "the kernel gives {} of the {wanted} huge pages that Open vSwitch with DPDK needs: free some memory, or ask for fewer \
             nodes with --dpdk",
            got - before.min(got)
        );
    }
    Ok(())
}

/// Gives back what a lab asked for. Its processes have ended.
///
/// # Errors
/// The kernel does not say or take the number.
pub(crate) fn release(lab: &Path) -> Result<()> {
    let note = lab.join(NOTE);
    let Ok(text) = fs::read_to_string(&note) else {
        return Ok(());
    };
    let _guard = lock()?;
    let noted: usize = text.trim().parse().unwrap_or_default();
    set(pages()?.saturating_sub(noted))?;
    fs::remove_file(&note).with_context(|| format!("cannot remove {}", note.display()))
}

/// What is to be there before ovs-vswitchd starts, in a database that may be new; gives the program.
pub(crate) fn prepare(node: &Node) -> Result<&'static str> {
    node.script(&format!(
        "mkdir -p /run/hugepages\n\
         mountpoint -q /run/hugepages || mount -t hugetlbfs -o pagesize=2M hugetlbfs /run/hugepages\n\
         ovs-vsctl --no-wait set open . other_config:dpdk-init=true other_config:dpdk-socket-mem=128 \
         other_config:per-port-memory=true other_config:pmd-cpu-mask=0x1 \
         'other_config:dpdk-extra=\"--no-pci --no-telemetry --huge-dir=/run/hugepages --file-prefix=ob{}-{}\"'",
        node.lab(),
        node.name()
    ))?;
    Ok(PROGRAM)
}

fn pages() -> Result<usize> {
    let text = fs::read_to_string(PAGES).with_context(|| format!("cannot read {PAGES}"))?;
    text.trim()
        .parse()
        .with_context(|| format!("{PAGES} says {text:?}"))
}

fn set(pages: usize) -> Result<()> {
    fs::write(PAGES, pages.to_string()).with_context(|| format!("cannot write {PAGES}"))
}

/// One lab at a time changes the number.
fn lock() -> Result<Flock<File>> {
    let path = state::base().join("hugepages.lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| anyhow::anyhow!("cannot lock {}: {errno}", path.display()))
}
