//! Kernel parameters of an attachment's two ends. /proc/sys/net shows the namespace of the thread that looks.

use std::io;
use std::path::{Path, PathBuf};

/// A parameter that could not be set.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {path} to {value}")]
pub(crate) struct SysctlError {
    path: PathBuf,
    value: &'static str,
    #[source]
    source: io::Error,
}

/// What IPv6 needs on an interface whose addresses OVN gives: on, no detection of duplicates (the allocation is unique,
/// and a tentative address would cost the pod its first second), nothing taken from router advertisements.
const IPV6: [(&str, &str); 4] = [
    ("disable_ipv6", "0"),
    ("accept_dad", "0"),
    ("accept_ra", "0"),
    ("autoconf", "0"),
];

/// Keeps the host's own IPv6 off the host's end: it would take a link-local address and speak into the pod. A kernel that
/// has no IPv6 at all is fine.
pub(crate) fn silence(link: &str) -> Result<(), SysctlError> {
    let directory = conf(link);
    if !directory.exists() {
        return Ok(());
    }
    set(directory.join("disable_ipv6"), "1")
}

/// Prepares a pod's interface before it goes up. `ipv6`: it gets an IPv6 address.
///
/// Without one a kernel that has no IPv6 at all is fine.
pub(crate) fn prepare(ifname: &str, ipv6: bool) -> Result<(), SysctlError> {
    let directory = conf(ifname);
    if !ipv6 && !directory.exists() {
        return Ok(());
    }
    let unwanted = |name: &str| !ipv6 && name == "disable_ipv6";
    IPV6.iter()
        .filter(|(name, _)| !unwanted(name))
        .try_for_each(|(name, value)| set(directory.join(name), value))
}

fn conf(link: &str) -> PathBuf {
    Path::new("/proc/sys/net/ipv6/conf").join(link)
}

/// What is so already is not written: the kernel would wait for the lock of all links, and spin meanwhile.
fn set(path: PathBuf, value: &'static str) -> Result<(), SysctlError> {
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim_end() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|source| SysctlError {
        path,
        value,
        source,
    })
}
