//! Where an interface's socket is, on each side. Pure.
//!
//! In a KubeVirt pod the volume `hook-sidecar-sockets` is /var/run/kubevirt-hooks of the container that runs QEMU; two levels deep
//! KubeVirt does not take our socket for a sidecar's. The path has nothing of the pod or the node in it: the two ends of a migration
//! see the same one, and the domain's definition need not change.

use std::path::{Path, PathBuf};

use cni_bin::code;
use serde::{Deserialize, Serialize};

use crate::attachment::Pod;
use crate::error::Error;

/// What fits into a socket's address, bytes (unix(7): 108 with the closing zero).
const ADDRESS: usize = 107;

/// A volume of a pod in which its sockets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Volume {
    /// KubeVirt gives it to every pod of a machine that has a hook sidecar.
    HookSidecarSockets,
    /// What userspace CNI plugins agree on for other pods.
    SharedDir,
}

impl Volume {
    /// In the order in which a pod is asked for them.
    pub(crate) const ALL: [Self; 2] = [Self::HookSidecarSockets, Self::SharedDir];

    /// The volume's name in the pod.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HookSidecarSockets => "hook-sidecar-sockets",
            Self::SharedDir => "shared-dir",
        }
    }

    /// The directories below the volume that are ours to make; none = the sockets are in the volume itself.
    pub(crate) fn directories(self) -> &'static [&'static str] {
        match self {
            Self::HookSidecarSockets => &["outboard", "net"],
            Self::SharedDir => &[],
        }
    }

    /// The sockets' directory as the pod's containers see it.
    fn in_container(self) -> &'static str {
        match self {
            Self::HookSidecarSockets => "/var/run/kubevirt-hooks/outboard/net",
            Self::SharedDir => "/var/lib/cni/usrcni",
        }
    }

    /// Name of the mount of this volume's sockets. A UID has no dot.
    fn mount(self, uid: &str) -> String {
        match self {
            Self::HookSidecarSockets => uid.to_owned(),
            Self::SharedDir => format!("{uid}.shared"),
        }
    }
}

/// An attachment's socket, as its record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Socket {
    /// The volume that it is in.
    pub(crate) volume: Volume,
    /// Name of the mount through which Open vSwitch reaches its directory.
    pub(crate) mount: String,
    /// Its name there.
    pub(crate) file: String,
    /// Its path as Open vSwitch is told it.
    pub(crate) server_path: String,
    /// Its path in the pod's containers.
    pub(crate) container_path: String,
    /// What the machine is to be told, bytes.
    pub(crate) mtu: u32,
    /// Queue pairs that the machine may use.
    pub(crate) queues: u16,
    /// The file that tells Multus.
    pub(crate) device_info: Option<PathBuf>,
}

impl Socket {
    /// The socket of interface `ifname` of a pod; the rest is as nobody has asked for anything.
    ///
    /// # Errors
    /// The pod's UID is no name of a directory, or the path does not fit into a socket's address.
    pub(crate) fn new(
        vhost_dir: &Path,
        pod: &Pod,
        ifname: &str,
        volume: Volume,
    ) -> Result<Self, Error> {
        check_uid(&pod.uid)?;
        let file = format!("{ifname}.sock");
        let mount = volume.mount(&pod.uid);
        let server_path = vhost_dir.join(&mount).join(&file).display().to_string();
        if server_path.len() > ADDRESS {
            return Err(Error::new(
                code::REFUSED,
                format!(
                    "Pod {pod}, interface {ifname}: the path of its socket, {server_path}, has {} bytes, and {ADDRESS} fit into a \
                     socket's address.",
                    server_path.len()
                ),
                "Give cni-node a shorter --vhost-dir.",
            ));
        }
        Ok(Self {
            volume,
            container_path: format!("{}/{file}", volume.in_container()),
            mount,
            file,
            server_path,
            mtu: 0,
            queues: 1,
            device_info: None,
        })
    }
}

/// A UID that becomes part of a path.
pub(crate) fn check_uid(uid: &str) -> Result<(), Error> {
    if podvolume::Pods::is_uid(uid) {
        return Ok(());
    }
    Err(Error::new(
        code::INVALID_ENVIRONMENT,
        format!("K8S_POD_UID in CNI_ARGS is {uid:?}, which is no UID of a pod."),
        "The runtime must pass the pod's UID as kubelet gave it.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> Pod {
        Pod {
            namespace: "vms".into(),
            name: "virt-launcher-a".into(),
            uid: uid.into(),
        }
    }

    const UID: &str = "8b4d1c8e-7a0e-4f6e-9a65-0e4b8d6f2c11";

    #[test]
    fn the_paths_are_those_that_the_shim_computes() {
        let dir = Path::new("/run/outboard/vhost");
        let vm = Socket::new(dir, &pod(UID), "pod6c270ef2f25", Volume::HookSidecarSockets).unwrap();
        assert_eq!(
            vm.container_path,
            "/var/run/kubevirt-hooks/outboard/net/pod6c270ef2f25.sock"
        );
        assert_eq!(
            vm.server_path,
            format!("/run/outboard/vhost/{UID}/pod6c270ef2f25.sock")
        );
        let app = Socket::new(dir, &pod(UID), "net1", Volume::SharedDir).unwrap();
        assert_eq!(app.container_path, "/var/lib/cni/usrcni/net1.sock");
        assert_ne!(app.mount, vm.mount);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let long = format!("/{}", "d".repeat(70));
        let error =
            Socket::new(Path::new(&long), &pod(UID), "net1", Volume::SharedDir).unwrap_err();
        assert!(
            error.cause.contains("107") && error.remedy.contains("--vhost-dir"),
            "{error}"
        );
        for uid in ["", "..", "a/b", ".staging", "a b"] {
            let error = check_uid(uid).unwrap_err();
            assert_eq!(error.code, code::INVALID_ENVIRONMENT, "{uid}");
        }
    }
}
