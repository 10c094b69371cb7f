//! The lab: a real Kubernetes on real OVN, each node a set of namespaces on one small machine.
//!
//! A [`Site`] is the ground: an underlay (`198.18.<id>.0/24`, `fd00:198:<id>::/64`), an outside host, and [`Node`]s with
//! their own network, mounts and host name. On it stand [`OvnLab`] (OVN central and chassis, up in seconds: enough for
//! tests of one daemon) and [`Lab`] (the same, and a Kubernetes cluster with kubelets and containerd). Several labs run
//! side by side; each one has an id, a state directory and a cgroup, and `down` leaves nothing of them.
//!
//! The calls block: the library is made for tests and for the program `outboard-lab`.

mod bench;
pub mod card;
pub mod cases;
mod central;
mod cgroup;
pub mod checks;
pub mod cli;
mod clock;
mod cni_call;
mod cni_lab;
mod cni_network;
mod cni_sandbox;
mod conntrack;
mod control_plane;
mod delegate;
mod demo;
mod dpdk;
mod env_file;
mod evidence;
mod fabric;
pub mod host_vm;
mod images;
mod install;
mod kubelet;
mod lab;
pub mod leaks;
pub mod libvirt;
mod node;
mod op_line;
mod ovn_lab;
mod pair_lab;
pub mod pairs;
mod pki;
pub mod plugin;
pub mod pods;
mod process;
mod reboot;
mod rows;
mod shell;
mod site;
mod state;
pub mod storage;
mod sweep;
mod switch;
mod topology;
mod uplink;
pub mod volumes;
mod wait;

pub use bench::{flood, stopwatch};
pub use central::{Central, CentralConfig};
pub use cni_call::{CniCall, CniOutcome};
pub use cni_lab::{CniLab, Remains};
pub use cni_network::{BLUE, EXTRA_ROUTE, LogicalNetwork, PodRow, PodSpec};
pub use cni_sandbox::CniSandbox;
pub use delegate::{Delegate, Sandbox, sandbox};
pub use lab::{Lab, LabConfig, Network};
pub use node::Node;
pub use ovn_lab::{OvnLab, OvnLabConfig};
pub use pair_lab::PairLab;
pub use pki::{Authority, Credential};
pub use process::Process;
pub use reboot::Reboot;
pub use shell::run;
pub use site::{Site, SiteConfig};
pub use topology::{Role, Topology};
pub use wait::until;
