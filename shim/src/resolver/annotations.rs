//! The pod's annotations as the downward API writes them, the way app-netutil reads them: `k8s.v1.cni.cncf.io/network-status` with
//! device-info, else `userspace/configuration-data` and `userspace/mapped-dir`.

use serde::Deserialize;

use super::network_info::{DeviceInfo, VhostUser};
use super::{Device, Why};
use crate::vmi::Network;

/// What it is called in sentences.
pub const FILE: &str = "/etc/podnetinfo/annotations";

const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";
const CONFIGURATION: &str = "userspace/configuration-data";
/// Ends with `/`: app-netutil puts the socket's name right behind it.
const MAPPED_DIR: &str = "userspace/mapped-dir";

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct NetworkStatus {
    #[serde(default)]
    name: String,
    #[serde(default)]
    interface: String,
    #[serde(default)]
    mac: String,
    #[serde(default)]
    mtu: i64,
    device_info: Option<DeviceInfo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    #[serde(default)]
    if_name: String,
    config: Option<UserspaceConfig>,
}

#[derive(Deserialize)]
struct UserspaceConfig {
    #[serde(default)]
    iftype: String,
    vhost: Option<UserspaceVhost>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct UserspaceVhost {
    mode: String,
    socketfile: String,
}

/// What the file says of a network; none: it is not named (yet).
///
/// # Errors
///
/// An annotation is not what its key promises, or the device is of no use.
pub fn find(text: &str, network: &Network, ifname: &str) -> Result<Option<Device>, Why> {
    let found = match value(text, NETWORK_STATUS) {
        Some(status) => status_of(&status, network, ifname)?,
        None => None,
    };
    if found.as_ref().is_some_and(|device| device.plug.is_some()) {
        return Ok(found);
    }
    let Some(configuration) = value(text, CONFIGURATION) else {
        return Ok(found);
    };
    let directory = value(text, MAPPED_DIR).unwrap_or_default();
    let list: Vec<Configuration> = list(&configuration)?;
    let ours = list.into_iter().find(|c| c.if_name == ifname);
    let Some(config) = ours
        .and_then(|c| c.config)
        .filter(|c| c.iftype == "vhostuser")
    else {
        return Ok(found);
    };
    let vhost = config.vhost.unwrap_or_default();
    let socket = VhostUser {
        mode: vhost.mode,
        path: format!("{directory}{}", vhost.socketfile),
    };
    let mut device = found.unwrap_or_default();
    device.plug = Some(socket.plug(FILE)?);
    Ok(Some(device))
}

fn status_of(status: &str, network: &Network, ifname: &str) -> Result<Option<Device>, Why> {
    let list: Vec<NetworkStatus> = list(status)?;
    let asked = network.multus.as_ref().map(|m| m.network_name.as_str());
    let by_name = |entry: &NetworkStatus| asked.is_some_and(|asked| named(&entry.name, asked));
    // The interface's name is the pod's own; a network may be there twice.
    let place = list
        .iter()
        .position(|entry| entry.interface == ifname)
        .or_else(|| list.iter().position(by_name));
    let Some(entry) = place.and_then(|place| list.into_iter().nth(place)) else {
        return Ok(None);
    };
    let plug = entry.device_info.map(|device| device.plug(FILE));
    Ok(Some(Device {
        plug: plug.transpose()?,
        mac: entry.mac,
        mtu: entry.mtu,
    }))
}

/// Multus writes `namespace/name`; a VM may leave the namespace out.
fn named(full: &str, asked: &str) -> bool {
    full == asked || (!asked.contains('/') && full.rsplit('/').next() == Some(asked))
}

fn list<T: serde::de::DeserializeOwned>(json: &str) -> Result<Vec<T>, Why> {
    serde_json::from_str(json).map_err(|error| Why::Malformed {
        file: FILE,
        error: error.to_string(),
    })
}

/// The value of a key: lines are `key="value"`, the value quoted as Go does.
fn value(text: &str, key: &str) -> Option<String> {
    let quoted = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
    // Go's quoting is JSON's but for a few escapes; for those, do as app-netutil does: without line ends, backslashes and blanks.
    serde_json::from_str(quoted).ok().or_else(|| {
        let plain = quoted.replace("\\n", "").replace(['\\', ' '], "");
        Some(plain.strip_prefix('"')?.strip_suffix('"')?.to_owned())
    })
}
