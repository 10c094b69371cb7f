//! Metadata of a DRA claim (KEP-5304): a file per claim and request, a stream of JSON objects, one per version of the format.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Device, Mode, Plug, Why};
use crate::vmi::ClaimRequest;

/// What it is called in sentences.
pub const FILE: &str = "the DRA claim's metadata";

/// The one version that is known.
const VERSION: &str = "metadata.resource.k8s.io/v1alpha1";
const PATH: &str = "vhost-user-path";
const MTU: &str = "mtu";

/// Contents of a claim's file.
#[derive(Debug, Clone)]
pub struct File {
    /// The claim, as the VM names it.
    pub claim: String,
    /// The request in it.
    pub request: String,
    /// The contents.
    pub text: String,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    requests: Vec<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    name: String,
    #[serde(default)]
    devices: Vec<Allocated>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Allocated {
    #[serde(default)]
    attributes: BTreeMap<String, Value>,
    network_data: Option<NetworkData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkData {
    #[serde(default)]
    hardware_address: String,
}

/// What a claim's file says of the device; none: there is no file (yet).
///
/// # Errors
///
/// The file is no such file, or the device has no socket.
pub fn find(files: &[File], claim: &ClaimRequest) -> Result<Option<Device>, Why> {
    let ours = |f: &&File| f.claim == claim.claim_name && f.request == claim.request_name;
    let Some(file) = files
        .iter()
        .find(ours)
        .filter(|f| !f.text.trim().is_empty())
    else {
        return Ok(None);
    };
    let metadata = known(&file.text)?;
    let fault = |fault: String| Why::Claim { file: FILE, fault };
    let name = format!(
        "request {} of claim {}",
        claim.request_name, claim.claim_name
    );
    let request = metadata
        .requests
        .into_iter()
        .find(|r| r.name == claim.request_name);
    let devices = request.map(|r| r.devices).unwrap_or_default();
    let Ok([device]) = <[Allocated; 1]>::try_from(devices) else {
        return Err(fault(format!(
            "{name} has not exactly one device; ask for one"
        )));
    };
    let text = |key| attribute(&device.attributes, key, "string").and_then(Value::as_str);
    let number = |key| attribute(&device.attributes, key, "int").and_then(Value::as_i64);
    let Some(path) = text(PATH) else {
        return Err(fault(format!(
            "the device of {name} has no attribute {PATH}; its driver has to give vhost-user sockets"
        )));
    };
    Ok(Some(Device {
        plug: Some(Plug::VhostUser {
            path: path.to_owned(),
            mode: Mode::Server,
        }),
        mtu: number(MTU).unwrap_or_default(),
        mac: device
            .network_data
            .map(|d| d.hardware_address)
            .unwrap_or_default(),
    }))
}

/// A driver's attribute, with or without the driver's domain before its name.
fn attribute<'a>(
    attributes: &'a BTreeMap<String, Value>,
    key: &str,
    kind: &str,
) -> Option<&'a Value> {
    let named = |name: &String| name == key || name.rsplit('/').next() == Some(key);
    let (_, value) = attributes.iter().find(|(name, _)| named(name))?;
    value.get(kind)
}

/// The first object of a version that is known.
fn known(text: &str) -> Result<Metadata, Why> {
    let malformed = |error: serde_json::Error| Why::Malformed {
        file: FILE,
        error: error.to_string(),
    };
    for object in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let object = object.map_err(malformed)?;
        if object.get("apiVersion").and_then(Value::as_str) == Some(VERSION) {
            return serde_json::from_value(object).map_err(malformed);
        }
    }
    let fault = format!("no version of it is known ({VERSION} is); a newer shim may be needed");
    Err(Why::Claim { file: FILE, fault })
}
