//! The end of a virt-launcher that says nothing.
//!
//! KubeVirt calls `Shutdown` when a VM has run and ended. The launcher of a migration's target has no VM yet when the migration fails, and
//! ends without a call (so does one that panics). A sidecar that went on would keep the pod: its ports would stay on that node, and KubeVirt
//! makes no further target for a VM that has two pods. The containers of a pod share its network namespace, and so the kernel's list of
//! unix sockets; it tells nobody that a socket went away, so it is read now and then.

use std::time::Duration;

use tracing::debug;

const EVERY: Duration = Duration::from_secs(2);
const SOCKETS: &str = "/proc/net/unix";
/// How often in a row the socket is not in the list: the list is not read in one piece.
const MISSES: u32 = 2;

/// Returns when the launcher's socket, bound to the path `at`, was there and is gone. Never where it is never seen.
pub(crate) async fn gone(at: &str) {
    let mut ticks = tokio::time::interval(EVERY);
    let mut misses = None;
    loop {
        ticks.tick().await;
        let list = match std::fs::read(SOCKETS) {
            Ok(list) => list,
            Err(error) => {
                debug!("{SOCKETS}: {error}");
                continue;
            }
        };
        misses = if lists(&list, at) {
            Some(0)
        } else {
            misses.map(|so_far: u32| so_far + 1)
        };
        if misses >= Some(MISSES) {
            return;
        }
    }
}

/// Whether a socket in the kernel's list has this path: the last of eight columns, and it may have spaces.
fn lists(list: &[u8], path: &str) -> bool {
    list.split(|byte| *byte == b'\n').any(|line| {
        let before = line.strip_suffix(path.as_bytes());
        before.is_some_and(|before| before.ends_with(b" "))
    })
}

#[cfg(test)]
mod tests {
    use super::lists;

    /// As a launcher's pod showed it.
    const LIST: &[u8] = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
        00000000672fef94: 00000002 00000000 00010000 0001 01 241203466 /var/run/kubevirt/sockets/launcher-init-sock\n\
        00000000c1ff7ab0: 00000003 00000000 00000000 0001 03 241203275\n\
        0000000071ee0a76: 00000003 00000000 00000000 0001 03 241202649 @\xff\n";

    #[test]
    fn a_path_is_found_as_a_whole() {
        assert!(lists(LIST, "/var/run/kubevirt/sockets/launcher-init-sock"));
        for other in [
            "launcher-init-sock",
            "/sockets/launcher-init-sock",
            "/var/run/kubevirt/sockets/launcher",
        ] {
            assert!(!lists(LIST, other), "{other}");
        }
    }
}
