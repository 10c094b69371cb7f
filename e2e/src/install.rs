//! Outboard in a lab: what the lab owes it (keys, addresses), then its own manifests, then CoreDNS. Its storage likewise.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::storage::{DRIVER, TARGET_LABEL};

use crate::images;
use crate::lab::{Lab, LabConfig};
use crate::pairs;
use crate::pki::Authority;

const NAMESPACE: &str = "outboard-system";
const COREDNS: &str = include_str!("../manifests/coredns.yaml");
const DEFINITIONS: &str = include_str!("../manifests/network-attachment-definitions.yaml");

/// Applies secrets, `manifests/overlays/lab` (`lab-dpu` where there are DPUs, and their objects) and CoreDNS.
pub(crate) fn outboard(lab: &Lab, config: &LabConfig) -> Result<()> {
    lab.apply(&format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n"
    ))?;
    secrets(lab)?;
    lab.apply(DEFINITIONS)?;
    let dpus = pairs::of(lab);
    if dpus.is_empty() {
        overlay(lab, "lab")?;
    } else {
        let functions = [format!(
            "--from-literal=functions={}",
            config.card_functions
        )];
        create(lab, &["configmap", "outboard-card"], &functions)?;
        overlay(lab, "lab-dpu")?;
        pairs::declare(lab, &dpus)?;
    }
    lab.apply(COREDNS)?;
    Ok(())
}

/// Waits until Outboard and CoreDNS are rolled out.
pub(crate) fn wait(lab: &Lab) -> Result<()> {
    rolled_out(lab, NAMESPACE, "daemonset/cni-node")?;
    if !pairs::of(lab).is_empty() {
        rolled_out(lab, NAMESPACE, "daemonset/cni-node-dpu")?;
        rolled_out(lab, NAMESPACE, "daemonset/cni-node-host")?;
        pairs::wait(lab)?;
    }
    rolled_out(lab, NAMESPACE, "deployment/cni-controller")?;
    rolled_out(lab, "kube-system", "deployment/coredns")
}

/// Applies the snapshot CRDs, storage's CA and `manifests/overlays/lab-csi`.
pub(crate) fn storage(lab: &Lab) -> Result<()> {
    // Beside the tools' programs.
    let tool = images::tool("csi-snapshotter")?;
    let tools = Path::new(&tool).ancestors().nth(2);
    let crds = tools
        .context("a tool lies in a directory")?
        .join("snapshot-crds");
    let crds = crds.display().to_string();
    lab.kubectl(&["apply", "--server-side", "-f", &crds])?;
    let ca = Authority::create(&lab.site.dir().join("storage"), "outboard-storage-ca")?;
    let pair = [file("tls.crt", &ca.certificate), file("tls.key", &ca.key)];
    secret(lab, "outboard-storage-ca", &pair)?;
    let public = [file("ca.crt", &ca.certificate)];
    create(lab, &["configmap", "outboard-storage-ca"], &public)?;
    let id = [format!("--from-literal=id={}", lab.site.id())];
    create(lab, &["configmap", "outboard-lab"], &id)?;
    let target = format!("{TARGET_LABEL}=true");
    lab.kubectl(&[
        "label",
        "--overwrite",
        "node",
        lab.site.master().name(),
        &target,
    ])?;
    overlay(lab, "lab-csi")
}

/// Waits until storage is rolled out and every kubelet knows the driver.
pub(crate) fn wait_for_storage(lab: &Lab) -> Result<()> {
    let nodes = lab.nodes().len();
    // kubectl waits for no rollout of a DaemonSet with OnDelete.
    lab.wait_for(
        "outboard-engine on every node",
        Duration::from_secs(120),
        |lab| {
            let query = "-o=jsonpath={.status.numberReady}";
            let ready =
                lab.kubectl(&["get", "-n", NAMESPACE, "daemonset/outboard-engine", query])?;
            ensure!(
                ready == nodes.to_string(),
                "ready on {ready} of {nodes} nodes"
            );
            Ok(true)
        },
    )?;
    for workload in [
        "daemonset/csi-node-dpu",
        "daemonset/csi-node-host",
        "deployment/csi-controller",
        "deployment/snapshot-controller",
    ] {
        rolled_out(lab, NAMESPACE, workload)?;
    }
    lab.wait_for(
        "the driver at every kubelet",
        Duration::from_secs(60),
        |lab| {
            let query = "-o=jsonpath={.items[*].spec.drivers[*].name}";
            let drivers = lab.kubectl(&["get", "csinodes", query])?;
            let known = drivers.split(' ').filter(|name| *name == DRIVER).count();
            ensure!(known == nodes, "{known} of {nodes} CSINodes have {DRIVER}");
            Ok(true)
        },
    )
}

fn overlay(lab: &Lab, name: &str) -> Result<()> {
    let overlay = images::checkout().join("manifests/overlays").join(name);
    let overlay = overlay.display().to_string();
    // Custom resources of the overlay may need a second look at the CRDs that came with it.
    lab.wait_for("the manifests to apply", Duration::from_secs(30), |lab| {
        lab.kubectl(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "-k",
            &overlay,
        ])
        .map(|_| true)
    })
}

fn rolled_out(lab: &Lab, namespace: &str, workload: &str) -> Result<()> {
    let line = [
        "rollout",
        "status",
        "-n",
        namespace,
        workload,
        "--timeout=120s",
    ];
    lab.kubectl(&line).map(drop)
}

fn file(name: &str, path: &Path) -> String {
    format!("--from-file={name}={}", path.display())
}

fn secrets(lab: &Lab) -> Result<()> {
    let central = &lab.central;
    let chassis = [
        file("tls.crt", &central.chassis_ca.certificate),
        file("tls.key", &central.chassis_ca.key),
    ];
    secret(lab, "outboard-chassis-ca", &chassis)?;
    let client = [
        file("tls.crt", &central.nb_client.certificate),
        file("tls.key", &central.nb_client.key),
        file("ca.crt", &central.nb_ca.certificate),
    ];
    secret(lab, "outboard-nb-client", &client)?;
    let southbound = [file("ca.crt", &central.chassis_ca.certificate)];
    create(lab, &["configmap", "outboard-southbound-ca"], &southbound)?;
    let channel = Authority::create(&lab.site.dir().join("channel"), "outboard-channel-ca")?;
    let pair = [
        file("tls.crt", &channel.certificate),
        file("tls.key", &channel.key),
    ];
    secret(lab, "outboard-channel-ca", &pair)?;
    let public = [file("ca.crt", &channel.certificate)];
    create(lab, &["configmap", "outboard-channel-ca"], &public)?;
    let server = lab.api_server().trim_start_matches("https://");
    let (host, port) = server.rsplit_once(':').unwrap_or((server, "6443"));
    let config = [
        format!("--from-literal=KUBERNETES_SERVICE_HOST={host}"),
        format!("--from-literal=KUBERNETES_SERVICE_PORT={port}"),
        format!("--from-literal=OUTBOARD_NB={}", central.nb_remote()),
        format!("--from-literal=OUTBOARD_SB={}", central.sb_remote()),
    ];
    create(lab, &["configmap", "outboard-addresses"], &config)
}

fn secret(lab: &Lab, name: &str, contents: &[String]) -> Result<()> {
    create(lab, &["secret", "generic", name], contents)
}

fn create(lab: &Lab, what: &[&str], contents: &[String]) -> Result<()> {
    let mut argv = vec!["create", "-n", NAMESPACE];
    argv.extend(what);
    argv.extend(contents.iter().map(String::as_str));
    lab.kubectl(&argv).map(drop)
}

#[cfg(test)]
mod tests {
    use api::storage::{NODE_PORT, NODE_SERVICE_ACCOUNT, SIGNER};

    use super::*;

    #[test]
    fn manifests_spell_names_as_the_programs_do() {
        let says = |file: &str, text: &str| {
            let path = images::checkout().join("manifests/csi").join(file);
            let manifest = std::fs::read_to_string(&path).unwrap();
            assert!(manifest.contains(text), "{}: no {text:?}", path.display());
        };
        says("driver.yaml", &format!("\n  name: {DRIVER}\n"));
        says("classes.yaml", &format!("\nprovisioner: {DRIVER}\n"));
        says("classes.yaml", &format!("\ndriver: {DRIVER}\n"));
        says(
            "controller.yaml",
            &format!("\n        {TARGET_LABEL}: \"true\"\n"),
        );
        says(
            "controller-rbac.yaml",
            &format!("resourceNames: [{SIGNER}]\n"),
        );
        says(
            "node-rbac.yaml",
            &format!("\n  name: {NODE_SERVICE_ACCOUNT}\n"),
        );
        says(
            "node-dpu.yaml",
            &format!("\n      serviceAccountName: {NODE_SERVICE_ACCOUNT}\n"),
        );
        says("node-dpu.yaml", &format!("--listen=[::]:{NODE_PORT}\n"));
        says("node-host.yaml", &format!("/plugins/{DRIVER}/csi.sock\n"));
    }
}
