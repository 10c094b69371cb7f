//! Outboard in a lab: what the lab owes it (keys, addresses), then its own manifests, then CoreDNS.

use std::time::Duration;

use anyhow::Result;

use crate::images;
use crate::lab::Lab;

const NAMESPACE: &str = "outboard-system";
const COREDNS: &str = include_str!("../manifests/coredns.yaml");
const DEFINITIONS: &str = include_str!("../manifests/network-attachment-definitions.yaml");

/// Applies secrets, `manifests/overlays/lab` and CoreDNS.
pub(crate) fn outboard(lab: &Lab) -> Result<()> {
    lab.apply(&format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n"
    ))?;
    secrets(lab)?;
    lab.apply(DEFINITIONS)?;
    let overlay = images::checkout()
        .join("manifests/overlays/lab")
        .display()
        .to_string();
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
    })?;
    lab.apply(COREDNS)?;
    Ok(())
}

/// Waits until Outboard and CoreDNS are rolled out.
pub(crate) fn wait(lab: &Lab) -> Result<()> {
    for (namespace, workload) in [
        (NAMESPACE, "daemonset/cni-node"),
        (NAMESPACE, "deployment/cni-controller"),
        ("kube-system", "deployment/coredns"),
    ] {
        lab.kubectl(&[
            "rollout",
            "status",
            "-n",
            namespace,
            workload,
            "--timeout=120s",
        ])?;
    }
    Ok(())
}

fn secrets(lab: &Lab) -> Result<()> {
    let central = &lab.central;
    let file =
        |name: &str, path: &std::path::Path| format!("--from-file={name}={}", path.display());
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
