//! `manifests/kubevirt` as the API server takes it: the patch, the policy's verdicts, the examples; and the VMs of these tests, which
//! are some of them.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use e2e::Lab;
use serde_json::{Value, json};

const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/kubevirt");
/// KubeVirt's kinds.
const KINDS: &str = include_str!("../../manifests/kubevirt.yaml");
const EXAMPLES: [&str; 8] = [
    "network",
    "nic",
    "cloud-init",
    "hugepages",
    "multiqueue",
    "data-disk",
    "boot-disk",
    "sriov",
];
/// Applies everything.
pub(crate) fn apply(lab: &Lab) -> Result<()> {
    kinds(lab)?;
    binding(lab)?;
    lab.kubectl(&["apply", "--server-side", "-k", MANIFESTS])?;
    examples(lab, &EXAMPLES)?;
    verdicts(lab)
}

/// KubeVirt's kinds alone, long after cni-controller's start.
pub(crate) fn kinds(lab: &Lab) -> Result<()> {
    lab.apply(KINDS)?;
    for kind in [
        "kubevirts",
        "virtualmachines",
        "virtualmachineinstances",
        "virtualmachineinstancemigrations",
    ] {
        let crd = format!("crd/{kind}.kubevirt.io");
        lab.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", &crd])?;
    }
    Ok(())
}

/// Some of the examples, the network among them.
pub(crate) fn examples(lab: &Lab, names: &[&str]) -> Result<()> {
    for example in names {
        let file = format!("{MANIFESTS}/examples/{example}.yaml");
        // A field that KubeVirt does not have is an error.
        lab.kubectl(&["apply", "--validate=strict", "-f", &file])
            .with_context(|| file.clone())?;
    }
    let wait = ["wait", "--for=condition=Ready", "--timeout=30s"];
    lab.kubectl(&[&wait[..], &["subnet.iaas.yusur.io", "machines"]].concat())
        .map(drop)
}

/// The VirtualMachineInstance that virt-controller makes of an example's VM.
pub(crate) fn instance(lab: &Lab, vm: &str) -> Result<Value> {
    let text = lab.kubectl(&["get", "virtualmachine", vm, "-o", "json"])?;
    let name = vm;
    let vm: Value = serde_json::from_str(&text).context("kubectl printed no JSON")?;
    let template = &vm["spec"]["template"];
    let instance = json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {
            "name": name, "namespace": "default", "annotations": template["metadata"]["annotations"],
        },
        "spec": template["spec"],
    });
    lab.apply(&instance.to_string())?;
    let text = lab.kubectl(&["get", "virtualmachineinstance", name, "-o", "json"])?;
    serde_json::from_str(&text).context("kubectl printed no JSON")
}

/// The patch fits KubeVirt's object.
fn binding(lab: &Lab) -> Result<()> {
    lab.apply(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: kubevirt}\n---\n\
         apiVersion: kubevirt.io/v1\nkind: KubeVirt\nmetadata: {name: kubevirt, namespace: kubevirt}\nspec: {}\n",
    )?;
    let file = format!("{MANIFESTS}/binding.yaml");
    let patch = ["patch", "kubevirt", "-n", "kubevirt", "kubevirt"];
    let how = ["--type=merge", "--patch-file", &file, "-o", "json"];
    let text = lab.kubectl(&[&patch[..], &how].concat())?;
    let object: Value = serde_json::from_str(&text).context("kubectl printed no JSON")?;
    let bindings = &object["spec"]["configuration"]["network"]["binding"];
    for name in ["vhostuser", "vhostuser-cloudinit"] {
        let binding = &bindings[name];
        ensure!(
            binding["downwardAPI"] == "device-info"
                && binding["migration"] == json!({})
                && binding["sidecarImage"]
                    .as_str()
                    .is_some_and(|image| image.contains("vhostuser-shim")),
            "binding {name} after the patch: {binding}"
        );
    }
    Ok(())
}

/// What the admission policy refuses, with its own words. It works some time after it was written.
fn verdicts(lab: &Lab) -> Result<()> {
    let nic = std::fs::read_to_string(Path::new(MANIFESTS).join("examples/nic.yaml"))?;
    let refused = |change: (&str, &str), sentence: &str| -> Result<()> {
        let changed = nic
            .replace("name: nic\n", "name: refused\n")
            .replace(change.0, change.1);
        ensure!(
            changed.contains(change.1),
            "no {:?} in the example",
            change.0
        );
        e2e::until("the policy's refusal", super::MINUTE, || {
            let said = match lab.apply(&changed) {
                Err(said) => format!("{said:#}"),
                Ok(_) => {
                    lab.kubectl(&["delete", "virtualmachine", "refused"])?;
                    return Ok(None);
                }
            };
            ensure!(
                said.contains(sentence),
                "refused for another reason: {said}"
            );
            Ok(Some(()))
        })
    };
    let pod = ("multus: {networkName: default/machines}", "pod: {}");
    refused(pod, "the pod's own network has no socket for it")?;
    let encrypted = ("domain:\n", "domain:\n        launchSecurity: {sev: {}}\n");
    refused(encrypted, "which launchSecurity encrypts")?;
    let unshared = (
        "labels: {app: nic}",
        "annotations: {kubevirt.io/memfd: \"false\"}",
    );
    refused(unshared, "would start and lose every packet")
}
