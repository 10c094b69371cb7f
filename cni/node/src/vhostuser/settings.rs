//! The flags of this kind.

use std::path::PathBuf;

/// How sockets of virtual machines and of DPDK applications are reached.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "vhost-flags")]
pub(crate) struct Args {
    /// Directory of the short mounts through which Open vSwitch reaches pods' sockets; on the host at the same path, and mounted into
    /// cni-node's pod with mountPropagation Bidirectional.
    #[arg(
        long,
        default_value = "/run/outboard/vhost",
        env = "OUTBOARD_VHOST_DIR"
    )]
    pub(crate) vhost_dir: PathBuf,
    /// kubelet's root directory: the volumes of pods are below it.
    #[arg(
        long,
        default_value = "/var/lib/kubelet",
        env = "OUTBOARD_KUBELET_ROOT"
    )]
    pub(crate) kubelet_root: PathBuf,
    /// The user that virtual machines run as: owner of their sockets' directories.
    #[arg(long, default_value_t = 107, env = "OUTBOARD_VHOST_UID")]
    pub(crate) vhost_uid: u32,
    /// The group of these directories.
    #[arg(long, default_value_t = 107, env = "OUTBOARD_VHOST_GID")]
    pub(crate) vhost_gid: u32,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    /// A pod that lacks one of them says so only when a machine comes.
    #[test]
    fn cni_nodes_pods_have_what_the_flags_name() {
        for file in ["node.yaml", "node-dpu.yaml"] {
            let path = format!("{}/../../manifests/base/{file}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(&path).unwrap();
            let set: Value = serde_saphyr::from_str(&text).unwrap();
            let pod = &set["spec"]["template"]["spec"];
            let container = &pod["containers"][0];
            assert_eq!(container["securityContext"]["privileged"], true, "{file}");
            let mounts = container["volumeMounts"].as_array().unwrap();
            for (path, propagation) in [
                ("/run/outboard", "Bidirectional"),
                ("/var/lib/kubelet", "HostToContainer"),
                ("/run/k8s.cni.cncf.io", ""),
                ("/var/run/k8s.cni.cncf.io", ""),
            ] {
                let mount = mounts.iter().find(|mount| mount["mountPath"] == path);
                let mount = mount.unwrap_or_else(|| panic!("{file} has no mount of {path}"));
                let spread = mount["mountPropagation"].as_str().unwrap_or_default();
                assert_eq!(spread, propagation, "{file}: {path}");
                let volumes = pod["volumes"].as_array().unwrap();
                let volume = volumes
                    .iter()
                    .find(|volume| volume["name"] == mount["name"]);
                let host = volume.unwrap()["hostPath"]["path"].as_str().unwrap();
                assert!(path.ends_with(host), "{file}: {path} is {host}");
            }
        }
    }
}
