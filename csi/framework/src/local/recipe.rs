//! What a volume's daemon shall be: a pure function of the record, and of the certificates that lie there.

use std::path::{Path, PathBuf};

use qemu::Step;
use serde_json::{Value, json};
use uuid::Uuid;

use super::config::{Config, Listen};
use crate::export::Access;
use crate::identity::serial;
use crate::state::{ExportRecord, FileId, VolumeRecord};
use crate::volume::Qos;

/// The node that exports take: a throttle filter, always there, so that limits can change.
pub(crate) const TOP: &str = "top";
/// The node that QEMU puts above an image into which a merge moves data, while it does.
pub(crate) const MERGING: &str = "merging";
/// The node that a group snapshot's pause hangs on.
pub(crate) const GATE: &str = "gate";
/// The throttle group.
pub(crate) const LIMITS: &str = "limits";
/// The list of the clients' distinguished names.
pub(crate) const HOSTS: &str = "hosts";
/// What the server shows and believes; a tag of the files follows.
const TLS: &str = "tls";
const TLS_KIND: &str = "tls-creds-x509";
const NAMESPACE: Uuid = Uuid::from_u128(0x6f75_7462_6f61_7264_8000_7365_7276_6572);
/// Exports of ours; others are the card's.
const EXPORT: &str = "ob-";

pub(crate) fn step(execute: &str, arguments: Value) -> Step {
    let Value::Object(arguments) = arguments else {
        unreachable!("arguments are an object")
    };
    Step {
        execute: execute.to_owned(),
        arguments,
    }
}

pub(crate) fn image_path(config: &Config, file: FileId) -> PathBuf {
    config.dir.join("images").join(format!("{}.qcow2", file.0))
}

pub(crate) fn file_node(file: FileId) -> String {
    format!("f-{}", serial(file.0))
}

pub(crate) fn export_id(export: &ExportRecord) -> String {
    format!("{EXPORT}{}", serial(export.token))
}

pub(crate) fn is_our_export(id: &str) -> bool {
    id.starts_with(EXPORT)
}

/// Opens an image for writing. What it rests on is opened as its header says: that is right before and after a merge.
pub(crate) fn image(config: &Config, file: FileId) -> Value {
    json!({
        "driver": "qcow2",
        "node-name": file_node(file),
        "discard": "unmap",
        "detect-zeroes": "unmap",
        "file": {
            "driver": "file",
            "filename": image_path(config, file),
            "aio": config.aio.name(),
            "discard": "unmap",
            "cache": { "direct": true },
        },
    })
}

/// The node that exports take, above `node`.
pub(crate) fn top(node: &str) -> Value {
    json!({
        "driver": "throttle",
        "node-name": TOP,
        "throttle-group": LIMITS,
        "file": node,
    })
}

pub(crate) fn limits(qos: &Qos) -> Value {
    json!({
        "iops-total": qos.iops.unwrap_or(0),
        "iops-read": qos.read_iops.unwrap_or(0),
        "iops-write": qos.write_iops.unwrap_or(0),
        "bps-total": qos.bytes.unwrap_or(0),
        "bps-read": qos.read_bytes.unwrap_or(0),
        "bps-write": qos.write_bytes.unwrap_or(0),
    })
}

/// Who may connect, where the server demands certificates.
pub(crate) fn hosts(config: &Config, volume: &VolumeRecord) -> Option<Step> {
    tls_dir(config)?;
    let names = over_nbd(volume).filter_map(|export| export.dn.as_deref());
    let rules: Vec<_> = names
        .map(|dn| json!({ "match": dn, "policy": "allow", "format": "exact" }))
        .collect();
    let arguments =
        json!({ "qom-type": "authz-list", "id": HOSTS, "policy": "deny", "rules": rules });
    Some(step("object-add", arguments))
}

pub(crate) fn tls_dir(config: &Config) -> Option<&Path> {
    match &config.listen {
        Listen::Tcp { tls, .. } => tls.as_deref(),
        Listen::Unix => None,
    }
}

/// The name of the credentials that lie there now. QEMU reads them once, when the object is made: others are another object.
pub(crate) fn tls_id(dir: &Path) -> String {
    let mut bytes = Vec::new();
    for file in ["ca-cert.pem", "server-cert.pem", "server-key.pem"] {
        // The daemon says what is wrong with a file that can't be read.
        bytes.extend(std::fs::read(dir.join(file)).unwrap_or_default());
    }
    let tag = Uuid::new_v5(&NAMESPACE, &bytes).simple().to_string();
    format!("{TLS}-{}", &tag[..12])
}

/// The step of a recipe that makes the credentials.
pub(crate) fn credentials(steps: &[Step]) -> Option<&Step> {
    let kind = |step: &&Step| {
        step.arguments
            .get("qom-type")
            .is_some_and(|it| it == TLS_KIND)
    };
    steps.iter().find(kind)
}

pub(crate) fn over_nbd(volume: &VolumeRecord) -> impl Iterator<Item = &ExportRecord> {
    volume.exports.iter().filter(|export| !export.same_node)
}

/// Starts the NBD server; `socket` is where a unix one listens, `tls` the credentials' name.
pub(crate) fn server(
    config: &Config,
    volume: &VolumeRecord,
    socket: &Path,
    tls: Option<&str>,
) -> Step {
    let address = match &config.listen {
        Listen::Unix => json!({ "type": "unix", "data": { "path": socket } }),
        Listen::Tcp { address, .. } => {
            let port = volume.port.unwrap_or_default().to_string();
            json!({ "type": "inet", "data": { "host": address.to_string(), "port": port } })
        }
    };
    let mut arguments = json!({ "addr": address, "max-connections": 0 });
    if let Some(tls) = tls {
        arguments["tls-creds"] = json!(tls);
        arguments["tls-authz"] = json!(HOSTS);
    }
    step("nbd-server-start", arguments)
}

/// The host's side waits for a daemon that died, and then goes on: it can't know of writes that the dead one had answered and not put into
/// the image, and a flush to the next one would vouch for them. So there are none, unless the volume is said to have a write cache.
pub(crate) fn nbd_export(volume: &VolumeRecord, export: &ExportRecord) -> Step {
    let arguments = json!({
        "type": "nbd",
        "id": export_id(export),
        "node-name": TOP,
        "name": export.token.to_string(),
        "writable": export.access == Access::ReadWrite,
        "writethrough": !volume.write_cache,
    });
    step("block-export-add", arguments)
}

/// The commands that make an empty daemon serve the volume, with the certificates that lie there now.
pub(crate) fn recipe(config: &Config, volume: &VolumeRecord, socket: &Path) -> Vec<Step> {
    let group =
        json!({ "qom-type": "throttle-group", "id": LIMITS, "limits": limits(&volume.qos) });
    let gate = json!({ "driver": "null-co", "node-name": GATE, "size": 512 });
    let mut steps = vec![
        step("object-add", group),
        step("blockdev-add", image(config, volume.top)),
        step("blockdev-add", top(&file_node(volume.top))),
        step("blockdev-add", gate),
    ];
    let tls = tls_dir(config).map(|dir| (dir, tls_id(dir)));
    if let Some((dir, id)) = &tls {
        let credentials = json!({
            "qom-type": TLS_KIND, "id": id, "dir": dir, "endpoint": "server", "verify-peer": true,
        });
        steps.push(step("object-add", credentials));
    }
    steps.extend(hosts(config, volume));
    if over_nbd(volume).next().is_some() {
        let tls = tls.as_ref().map(|(_, id)| id.as_str());
        steps.push(server(config, volume, socket, tls));
        steps.extend(over_nbd(volume).map(|export| nbd_export(volume, export)));
    }
    steps
}

/// Exports that somebody else put into the recipe of the daemon.
pub(crate) fn foreign(steps: &[Step]) -> impl Iterator<Item = &Step> {
    steps.iter().filter(|step| {
        let id = step.arguments.get("id").and_then(Value::as_str);
        step.execute == "block-export-add" && !id.is_some_and(is_our_export)
    })
}

/// The engine's id of a volume's daemon.
pub(crate) fn daemon_id(uuid: Uuid) -> String {
    format!("v-{uuid}")
}
