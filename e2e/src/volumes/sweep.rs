//! What is left of volumes: in the API server, and on each node in every place that knows of them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::Volume;
use crate::lab::Lab;
use crate::node::Node;
use crate::wait::until;

/// Merging of images goes on in the background.
const LIMIT: Duration = Duration::from_secs(90);

/// Everything on a node that a volume may leave behind, one thing a line. card.json is the count of daemons that died.
const PLACES: &str = r#"
cd /var/lib/outboard 2>/dev/null && find volumes/images volumes/catalogue volumes/run engine/records bridge attacher csi-controller \
    ! -type d ! -path '*/generations/*' ! -name '.*' 2>/dev/null | grep -vE '/(lock|epoch|linux/card.json)$' | sed 's,^,/var/lib/outboard/,'
ls -d /var/lib/outboard/engine/daemons/* 2>/dev/null
find /var/lib/kubelet/plugins/kubernetes.io/csi /run/outboard/exports /run/outboard/csi-node-host -mindepth 1 ! -type d ! -name .lock 2>/dev/null
awk '$5 ~ "/run/outboard/exports|/kubernetes.io[~/]csi" {print "mount " $5 " of " $4 " (" $3 ")"}' /proc/self/mountinfo
"#;

/// What is left of some volumes, one sentence each.
///
/// # Errors
/// A node or the API server cannot be asked.
pub fn left_of(lab: &Lab, volumes: &BTreeSet<Volume>) -> Result<Vec<String>> {
    if volumes.is_empty() {
        return Ok(Vec::new());
    }
    let ours = |line: &str| {
        volumes
            .iter()
            .any(|volume| line.contains(&volume.pv) || line.contains(volume.uuid()))
    };
    let mut left: Vec<String> = objects(lab)?
        .into_iter()
        .filter(|line| ours(line))
        .collect();
    for node in lab.nodes() {
        left.extend(on_node(node)?.into_iter().filter(|line| ours(line)));
    }
    left.extend(loops().into_iter().filter(|line| ours(line)));
    Ok(left)
}

/// Waits until no volume is left at all: no image, export, record of an engine, loop device, mount or journal on either node.
///
/// # Errors
/// Something is after some time: the message lists it.
pub fn wait_for_none(lab: &Lab) -> Result<()> {
    until("no volume to be left anywhere", LIMIT, || {
        let mut left = objects(lab)?;
        for node in lab.nodes() {
            left.extend(on_node(node)?);
        }
        let exports = format!("/run/outboard/exports/{}-", lab.site.id());
        left.extend(loops().into_iter().filter(|line| line.contains(&exports)));
        ensure!(
            left.is_empty(),
            "{} left:\n  {}",
            left.len(),
            left.join("\n  ")
        );
        Ok(Some(()))
    })
}

/// Objects of the API server that stand for volumes.
fn objects(lab: &Lab) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for kind in [
        "persistentvolumes",
        "volumeattachments",
        "volumesnapshotcontents",
        "volumegroupsnapshotcontents",
    ] {
        let list: Value = serde_json::from_str(&lab.kubectl(&["get", kind, "-o", "json"])?)?;
        for item in list["items"].as_array().into_iter().flatten() {
            let (name, spec) = (
                item["metadata"]["name"].as_str().unwrap_or_default(),
                &item["spec"],
            );
            let of = match kind {
                "persistentvolumes" => &spec["csi"]["volumeHandle"],
                "volumeattachments" => &spec["source"]["persistentVolumeName"],
                _ => &spec["source"],
            };
            found.push(format!("{kind}/{name} of {of}"));
        }
    }
    Ok(found)
}

fn on_node(node: &Node) -> Result<Vec<String>> {
    let found = node.exec(&["sh", "-c", &format!("{PLACES}\ntrue")])?;
    Ok(found
        .lines()
        .map(|line| format!("{}: {line}", node.name()))
        .collect())
}

/// Loop devices of this machine, which all nodes see: by the file that is behind each one.
fn loops() -> Vec<String> {
    let devices = std::fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten();
    devices
        .filter_map(|device| {
            let file = std::fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
            Some(format!(
                "{} over {}",
                device.file_name().to_string_lossy(),
                file.trim_end()
            ))
        })
        .collect()
}
