//! containerd and kubelet of a node.

use std::time::Duration;

use anyhow::Result;

use crate::control_plane::ControlPlane;
use crate::node::Node;
use crate::topology::Role;
use crate::{images, wait};

/// A container that has ended is started again at once, however often: tests of hosts and DPUs kill the same one many times.
const SOON: &str = "featureGates: {KubeletCrashLoopBackOffMax: true}
crashLoopBackOff: {maxContainerRestartPeriod: 1s}
";

/// Starts containerd and puts the reference CNI plugins beside it (it calls `loopback` itself for every pod).
pub(crate) fn containerd(node: &Node) -> Result<()> {
    let config = format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # The lab has no CAP_SYS_RESOURCE: a score below the parent's cannot be set.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"#,
        pause = images::PAUSE
    );
    node.write("/etc/containerd/config.toml", &config)?;
    for plugin in ["loopback", "bridge", "host-local", "portmap"] {
        let from = images::tool(plugin)?;
        node.exec(&["cp", &from, &format!("/opt/cni/bin/{plugin}")])?;
    }
    node.start(
        "containerd",
        &["containerd", "--config", "/etc/containerd/config.toml"],
    )?;
    containerd_serves(node)
}

fn containerd_serves(node: &Node) -> Result<()> {
    wait::until_true(
        &format!("containerd on node {}", node.name()),
        Duration::from_secs(30),
        || node.exec(&["ctr", "version"]).map(|_| true),
    )
}

/// Starts both again, as they were started before.
pub(crate) fn again(node: &Node) -> Result<()> {
    node.process("containerd").restart()?;
    containerd_serves(node)?;
    node.process("kubelet").restart()
}

/// Starts kubelet. The API server must serve already: kubelet's first retry comes late.
pub(crate) fn start(node: &Node, plane: &ControlPlane) -> Result<()> {
    let name = node.name();
    let (v4, v6) = node.addresses();
    let who = format!("system:node:{name}");
    let names = [name.to_string(), v4.clone(), v6.clone()];
    let credential = plane
        .ca
        .issue(&format!("kubelet-{name}"), &who, &["system:nodes"], &names)?;
    let kubeconfig = node.dir().join("kubelet.kubeconfig");
    plane.write_kubeconfig(&kubeconfig, &credential)?;
    // CoreDNS answers for the cluster; there is nobody to forward to.
    node.write("/etc/kubernetes/resolv.conf", "")?;
    let config = format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 0.0.0.0
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: "{ca}"}}
authorization: {{mode: Webhook}}
tlsCertFile: "{cert}"
tlsPrivateKeyFile: "{key}"
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: {cgroup}
failCgroupV1: false
enforceNodeAllocatable: []
failSwapOn: false
makeIPTablesUtilChains: false
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: /etc/kubernetes/resolv.conf
staticPodPath: /etc/kubernetes/manifests
volumePluginDir: /var/lib/kubelet/volumeplugins
maxPods: 300
serializeImagePulls: false
eventRecordQPS: 0
syncFrequency: 10s
fileCheckFrequency: 2s
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
{retries}evictionHard: {{memory.available: "0%", nodefs.available: "0%", imagefs.available: "0%", nodefs.inodesFree: "0%"}}
"#,
        ca = plane.ca.certificate.display(),
        cert = credential.certificate.display(),
        key = credential.key.display(),
        cgroup = node.cgroup().path(),
        retries = if *node.role() == Role::Plain {
            ""
        } else {
            SOON
        },
    );
    node.write("/var/lib/kubelet/config.yaml", &config)?;
    node.start(
        "kubelet",
        &[
            images::tool("kubelet")?,
            "--config=/var/lib/kubelet/config.yaml".into(),
            format!("--kubeconfig={}", kubeconfig.display()),
            "--root-dir=/var/lib/kubelet".into(),
            "--cert-dir=/var/lib/kubelet/pki".into(),
            format!("--hostname-override={name}"),
            format!("--node-ip={v4},{v6}"),
        ],
    )?;
    Ok(())
}

/// A network of the reference plugins, for a lab without Outboard: pods of one node reach each other.
pub(crate) fn bridge_network(node: &Node) -> Result<()> {
    let digits: String = node.name().chars().filter(char::is_ascii_digit).collect();
    let conflist = format!(
        r#"{{"cniVersion": "1.0.0", "name": "lab-bridge", "plugins": [
  {{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
   "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "10.200.{digits}.0/24"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}}]}}
"#
    );
    node.write("/etc/cni/net.d/90-lab-bridge.conflist", &conflist)
}
