//! The program as a process, in something like a pod: a directory for the hook sockets, and one for the files.

use std::fs::File;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// What one pod's containers share.
pub(crate) struct Pod(TempDir);

impl Pod {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("hooks")).unwrap();
        Self(directory)
    }

    /// What `compute` mounts at /var/run/kubevirt-hooks.
    pub(crate) fn hooks(&self) -> PathBuf {
        self.path("hooks")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn directory(&self, name: &str) {
        std::fs::create_dir_all(self.path(name)).unwrap();
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).unwrap();
    }
}

/// A running program; it is killed at the end of the test.
pub(crate) struct Sidecar {
    child: Child,
    log: PathBuf,
    output: PathBuf,
}

impl Sidecar {
    /// The pod's n-th sidecar, with the environment that KubeVirt gives it, and flags on top.
    pub(crate) fn start(pod: &Pod, n: usize, flags: &[&str]) -> Self {
        let name = format!("hook-sidecar-{n}");
        let sockets = pod.hooks().join(&name);
        std::fs::create_dir_all(&sockets).unwrap();
        let (log, output) = (
            pod.path(&format!("log-{n}")),
            pod.path(&format!("output-{n}")),
        );
        let child = Command::new(env!("CARGO_BIN_EXE_vhostuser-shim"))
            .env_clear()
            .env("CONTAINER_NAME", &name)
            .env("NETWORK_BINDING_PLUGIN_NAME", "vhostuser")
            .env("OUTBOARD_SHIM_SOCKET_DIR", &sockets)
            .env(
                "OUTBOARD_SHIM_NETWORK_INFO",
                pod.path("podinfo/network-info"),
            )
            .env(
                "OUTBOARD_SHIM_ANNOTATIONS",
                pod.path("podnetinfo/annotations"),
            )
            .env("OUTBOARD_SHIM_DRA_METADATA", pod.path("dra"))
            .env("OUTBOARD_SHIM_LINKS", pod.path("links"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .stderr(File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, log, output }
    }

    /// How it ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(Duration::from_secs(20), self.child.wait());
        ended.await.expect("it goes on").unwrap()
    }

    /// As the kernel does.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// As kubelet does.
    pub(crate) fn terminate(&self) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Memory of its own that is in use, in KiB. The program's pages are left out: a development build has many, and the bench holds the
    /// whole of a release to 10 MiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id().unwrap());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("RssAnon:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap()
    }
}
