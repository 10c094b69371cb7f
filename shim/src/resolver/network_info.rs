//! KubeVirt's downward file `network-info`: what virt-controller makes of the pod's network-status, for networks whose binding is
//! registered with `downwardAPI: device-info`.

use serde::Deserialize;

use super::{Device, Mode, Plug, Why};

/// What it is called in sentences.
pub const FILE: &str = "/etc/podinfo/network-info";

#[derive(Deserialize)]
struct NetworkInfo {
    interfaces: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    network: String,
    device_info: Option<DeviceInfo>,
    #[serde(default)]
    mac: String,
    #[serde(default)]
    mtu: i64,
}

/// device-info-spec 1.1.0: what a CNI plugin wrote about the device behind an interface.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct DeviceInfo {
    #[serde(rename = "type", default)]
    pub(super) kind: String,
    pub(super) vhost_user: Option<VhostUser>,
}

/// Its part of a vhost-user socket.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct VhostUser {
    pub(super) mode: String,
    pub(super) path: String,
}

/// What the file says of a network; none: it is not named (yet).
///
/// # Errors
///
/// The file is no such file, or the device is of no use.
pub fn find(text: &str, network: &str) -> Result<Option<Device>, Why> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let info: NetworkInfo = serde_json::from_str(text).map_err(|error| Why::Malformed {
        file: FILE,
        error: error.to_string(),
    })?;
    let mut entries = info.interfaces.into_iter().flatten();
    let Some(entry) = entries.find(|entry| entry.network == network) else {
        return Ok(None);
    };
    let plug = entry.device_info.map(|device| device.plug(FILE));
    Ok(Some(Device {
        plug: plug.transpose()?,
        mac: entry.mac,
        mtu: entry.mtu,
    }))
}

impl DeviceInfo {
    /// How an interface with this device is plugged.
    pub(super) fn plug(self, file: &'static str) -> Result<Plug, Why> {
        match self.kind.as_str() {
            "vhost-user" => self.vhost_user.unwrap_or_default().plug(file),
            "tap" => Ok(Plug::Tap),
            _ => Err(Why::Kind {
                file,
                kind: self.kind,
            }),
        }
    }
}

impl VhostUser {
    /// How an interface with this socket is plugged.
    pub(super) fn plug(self, file: &'static str) -> Result<Plug, Why> {
        let mode = match self.mode.as_str() {
            "client" => Mode::Client,
            "server" => Mode::Server,
            _ => {
                let mode = self.mode;
                return Err(Why::BadMode { file, mode });
            }
        };
        let path = self.path;
        Ok(Plug::VhostUser { path, mode })
    }
}
