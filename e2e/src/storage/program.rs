//! The programs of a chain, and how each is started.

use std::path::PathBuf;

use super::place::{HostPlace, Place, text};

/// A program. csi-controller exists once, the others once for each host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// `outboard-engine`.
    Engine,
    /// `opi-bridge`.
    Bridge,
    /// `volume-attacher`.
    Attacher,
    /// `csi-node-dpu`.
    NodeDpu,
    /// `csi-node-host`.
    NodeHost,
    /// `csi-controller`.
    Controller,
}

impl Program {
    /// Those of a host, in the order of their start.
    pub const OF_HOST: [Program; 5] = [
        Program::Engine,
        Program::Bridge,
        Program::Attacher,
        Program::NodeDpu,
        Program::NodeHost,
    ];

    /// Its file's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Program::Engine => "outboard-engine",
            Program::Bridge => "opi-bridge",
            Program::Attacher => "volume-attacher",
            Program::NodeDpu => "csi-node-dpu",
            Program::NodeHost => "csi-node-host",
            Program::Controller => "csi-controller",
        }
    }

    /// Where it serves.
    pub(super) fn socket(self, place: &Place, host: &HostPlace) -> PathBuf {
        match self {
            Program::Engine => host.engine_socket(),
            Program::Bridge => host.bridge_socket(),
            Program::Attacher => host.attacher_socket(),
            Program::NodeDpu => host.dpu_controller_socket(),
            Program::NodeHost => host.csi_socket(),
            Program::Controller => place.csi_socket(),
        }
    }

    /// Its arguments. `listen`: the port of csi-node-dpu, where there is TLS. `limit`: how many volumes the host takes.
    pub(super) fn arguments(
        self,
        place: &Place,
        host: &HostPlace,
        name: &str,
        listen: Option<u16>,
        limit: usize,
    ) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let mut flag = |name: &str, value: String| all.push(format!("--{name}={value}"));
        match self {
            Program::Engine => {
                flag("cgroup", String::new());
                flag("state", text(host.engine_state()));
                flag("socket", text(host.engine_socket()));
            }
            Program::Bridge => {
                flag("node-name", name.to_owned());
                flag("engine", text(host.engine_socket()));
                flag("state", text(host.bridge_state()));
                flag("socket", text(host.bridge_socket()));
                flag("exports-dir", text(host.exports()));
                flag("credentials-dir", text(host.credentials()));
            }
            Program::Attacher => {
                flag("host", name.to_owned());
                flag("bridge", text(host.bridge_socket()));
                flag("state", text(host.attacher_state()));
                flag("socket", text(host.attacher_socket()));
            }
            Program::NodeDpu => {
                flag("serves-node", name.to_owned());
                flag("attacher", text(host.attacher_socket()));
                flag("controller-socket", text(host.dpu_controller_socket()));
                flag("host-socket", text(host.dpu_host_socket()));
                if let Some(port) = listen {
                    flag("listen", format!("127.0.0.1:{port}"));
                    flag("tls", text(host.identity()));
                }
            }
            Program::NodeHost => {
                flag("node-name", name.to_owned());
                flag("endpoint", text(host.csi_socket()));
                flag("exports-dir", text(host.exports()));
                flag("kubelet-root", text(host.kubelet()));
                flag("run-dir", text(host.run()));
                flag("dpu-socket", text(host.dpu_host_socket()));
                flag("max-volumes", limit.to_string());
            }
            Program::Controller => {
                flag("endpoint", text(place.csi_socket()));
                flag("state", text(place.state()));
                flag("backends", text(place.backends()));
                flag("nodes", text(place.nodes()));
                if listen.is_some() {
                    flag("node-tls", text(place.controller_tls()));
                }
            }
        }
        let command = if self == Program::Bridge {
            "linux"
        } else {
            "run"
        };
        all.insert(0, command.to_owned());
        all
    }
}
