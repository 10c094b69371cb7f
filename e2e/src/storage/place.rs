//! Where everything of a chain lies: one directory, with one below it for each host.

use std::path::{Path, PathBuf};

/// A chain's directories.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Its own. Short: sockets lie in it.
    pub(super) dir: PathBuf,
    /// Images and catalogue of the back end.
    pub(super) volumes: PathBuf,
}

impl Place {
    pub(super) fn host(&self, name: &str) -> HostPlace {
        HostPlace(self.dir.join(name))
    }

    /// Logs of the programs, one file each.
    pub(super) fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// Of csi-controller.
    pub(super) fn csi_socket(&self) -> PathBuf {
        self.dir.join("c/csi.sock")
    }

    pub(super) fn backends(&self) -> PathBuf {
        self.dir.join("backends.yaml")
    }

    pub(super) fn nodes(&self) -> PathBuf {
        self.dir.join("nodes.yaml")
    }

    /// csi-controller's records.
    pub(super) fn state(&self) -> PathBuf {
        self.dir.join("c/state")
    }

    /// As whom csi-controller calls csi-node-dpu.
    pub(super) fn controller_tls(&self) -> PathBuf {
        self.dir.join("c/tls")
    }

    /// The target's certificate.
    pub(super) fn target_tls(&self) -> PathBuf {
        self.dir.join("c/target")
    }
}

/// A host's directory.
#[derive(Debug, Clone)]
pub(super) struct HostPlace(pub(super) PathBuf);

/// The name of a host's identity among the card's credentials.
pub(super) const IDENTITY: &str = "storage-identity";

impl HostPlace {
    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn engine_socket(&self) -> PathBuf {
        self.at("e/e.sock")
    }

    pub(super) fn engine_state(&self) -> PathBuf {
        self.at("es")
    }

    pub(super) fn bridge_socket(&self) -> PathBuf {
        self.at("b/b.sock")
    }

    pub(super) fn bridge_state(&self) -> PathBuf {
        self.at("bs")
    }

    pub(super) fn attacher_socket(&self) -> PathBuf {
        self.at("a/a.sock")
    }

    pub(super) fn attacher_state(&self) -> PathBuf {
        self.at("as")
    }

    /// Of csi-node-dpu, for csi-controller.
    pub(super) fn dpu_controller_socket(&self) -> PathBuf {
        self.at("d/controller.sock")
    }

    /// Of csi-node-dpu, for csi-node-host.
    pub(super) fn dpu_host_socket(&self) -> PathBuf {
        self.at("d/host.sock")
    }

    /// Of csi-node-host.
    pub(super) fn csi_socket(&self) -> PathBuf {
        self.at("c/csi.sock")
    }

    /// Files and sockets of the card's exports.
    pub(super) fn exports(&self) -> PathBuf {
        self.at("x")
    }

    /// Directories of certificates with which the card connects to targets.
    pub(super) fn credentials(&self) -> PathBuf {
        self.at("t")
    }

    pub(super) fn identity(&self) -> PathBuf {
        self.credentials().join(IDENTITY)
    }

    /// What csi-node-host notes until a reboot.
    pub(super) fn run(&self) -> PathBuf {
        self.at("r")
    }

    /// As /var/lib/kubelet on a node.
    pub(super) fn kubelet(&self) -> PathBuf {
        self.at("k")
    }

    /// Those that exist before a program runs.
    pub(super) fn prepared(&self) -> [PathBuf; 4] {
        [
            self.exports(),
            self.credentials(),
            self.kubelet(),
            self.at("c"),
        ]
    }
}

/// As an argument.
pub(super) fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}
