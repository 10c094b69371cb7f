//! Secrets that a StorageClass names go to every call, and into no log.

use std::fs::File;
use std::io::Read as _;

use anyhow::{Context as _, Result};
use e2e::volumes::{Claim, From, Mode, User};
use serde_json::{Value, json};

use crate::logs;
use crate::world::World;

/// Where the secret is: it must outlive the case's own namespace, for the last calls (detach, delete) are given it, too.
const HOME: &str = "default";

/// A volume's whole life with secrets at each step; the harness searches the logs after the phase.
pub(crate) fn used_everywhere(world: &World<'_>) -> Result<String> {
    let password = random()?;
    logs::watch_for(&password);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "storage", "namespace": HOME},
        "stringData": {"password": password},
    });
    world.lab.apply(&secret.to_string())?;
    // The sidecars may read no Secret but those that somebody lets them read.
    let account = "--serviceaccount=outboard-system:csi-controller";
    let role = [
        "--verb=get,list",
        "--resource=secrets",
        "--resource-name=storage",
    ];
    let create = ["create", "-n", HOME];
    world
        .lab
        .kubectl(&[&create[..], &["role", "storage"], &role].concat())?;
    let binding = ["rolebinding", "storage", "--role=storage", account];
    world.lab.kubectl(&[&create[..], &binding].concat())?;
    let calls = [
        "provisioner",
        "controller-publish",
        "node-stage",
        "node-publish",
        "controller-expand",
        "node-expand",
    ];
    let mut parameters = json!({"csi.storage.k8s.io/fstype": "xfs"});
    for call in calls {
        name_secret(&mut parameters, call);
    }
    let class = world.class("secret", &parameters)?;
    let claim = Claim {
        class: &class,
        ..Claim::new("first", "320Mi", Mode::Filesystem)
    };
    world.use_new(&claim, &User::new("first", "first", Mode::Filesystem))?;
    let md5 = world.fill("first", "/data/file", 4)?;
    world.grow("first", "352Mi")?;

    let mut parameters = json!({});
    for call in ["snapshotter", "snapshotter-list"] {
        name_secret(&mut parameters, call);
    }
    let snapshots = format!("{}-secret", world.ns);
    let snapshot_class = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
        "metadata": {"name": snapshots, "labels": {"case": world.ns}},
        "driver": "csi.iaas.yusur.io", "deletionPolicy": "Delete", "parameters": parameters,
    });
    world.lab.apply(&snapshot_class.to_string())?;
    let spec = json!({"volumeSnapshotClassName": snapshots, "source": {"persistentVolumeClaimName": "first"}});
    world.apply(
        ("snapshot.storage.k8s.io/v1", "VolumeSnapshot"),
        "shot",
        &json!({}),
        &spec,
    )?;
    world.wait(
        "volumesnapshot/shot",
        "jsonpath={.status.readyToUse}=true",
        crate::world::LONG,
    )?;
    let claim = Claim {
        from: Some(From::Snapshot("shot")),
        size: "352Mi",
        name: "second",
        ..claim
    };
    world.use_new(&claim, &User::new("second", "second", Mode::Filesystem))?;
    world.holds("second", "/data/file", 4, &md5)?;
    Ok(format!("{} calls were given a password", calls.len() + 2))
}

fn name_secret(parameters: &mut Value, call: &str) {
    parameters[format!("csi.storage.k8s.io/{call}-secret-name")] = json!("storage");
    parameters[format!("csi.storage.k8s.io/{call}-secret-namespace")] = json!(HOME);
}

/// Letters that nothing else contains.
fn random() -> Result<String> {
    let mut bytes = [0; 24];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("/dev/urandom")?;
    Ok(bytes
        .iter()
        .map(|byte| char::from(b'a' + byte % 26))
        .collect())
}
