//! What a network's configuration asks of an interface's kind. Pure.

use std::path::PathBuf;

use api::names::KIND_VHOST_USER as KIND;
use cni_bin::cni::NetConf;
use cni_bin::code;
use serde_json::Value;

use super::socket::Volume;
use crate::error::Error;

/// As many queue pairs as KubeVirt gives a machine at most.
const MAX_QUEUES: u16 = 256;
/// Keys that say something of that kind alone.
const ITS_KEYS: [&str; 3] = ["queues", "socketVolume", "fallback"];

/// What becomes of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A link in the pod's network namespace.
    #[default]
    Netns,
    /// A vhost-user socket in a volume of the pod.
    VhostUser(Asked),
}

/// What is asked of a vhost-user interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Queue pairs that the machine may use. Open vSwitch follows what the machine negotiates: the number bounds nothing.
    pub(crate) queues: u16,
    /// The volume of the socket; none = the first of [`Volume::ALL`] that the pod has.
    pub(crate) volume: Option<Volume>,
    /// What a machine gets on a node without DPDK.
    pub(crate) fallback: Fallback,
    /// `runtimeConfig.CNIDeviceInfoFile`: where Multus wants to read what the interface is.
    pub(crate) device_info: Option<PathBuf>,
}

/// What a machine gets where there is no DPDK.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// A tap in the pod's namespace.
    #[default]
    Tap,
    /// Nothing: the ADD is refused.
    None,
}

/// The kind that a configuration asks for.
///
/// # Errors
/// Code 7, with the key and what to write there.
pub(crate) fn kind(conf: &NetConf) -> Result<Kind, Error> {
    let network = &conf.name;
    let key = |name: &str| conf.custom.get(name).filter(|value| !value.is_null());
    match key("kind") {
        None => {
            let orphan = ITS_KEYS.into_iter().find(|name| key(name).is_some());
            return match orphan {
                None => Ok(Kind::Netns),
                Some(name) => Err(invalid(
                    format!("Network {network}: {name:?} is given without \"kind\": \"{KIND}\"."),
                    "Add the kind, or remove the key: interfaces in a pod's namespace have no socket.",
                )),
            };
        }
        Some(Value::String(kind)) if kind == KIND => {}
        Some(other) => {
            return Err(invalid(
                format!("Network {network}: \"kind\" is {other}."),
                "Write \"vhostuser\", or leave the key out for an interface in the pod's namespace.",
            ));
        }
    }
    let queues = match key("queues") {
        None => 1,
        Some(value) => value
            .as_u64()
            .and_then(|queues| u16::try_from(queues).ok())
            .filter(|queues| (1..=MAX_QUEUES).contains(queues))
            .ok_or_else(|| {
                invalid(
                    format!("Network {network}: \"queues\" is {value}."),
                    "Write a number from 1 to 256, or leave the key out for one pair of queues.",
                )
            })?,
    };
    let volume = match key("socketVolume") {
        None => None,
        Some(value) => {
            let known = value
                .as_str()
                .and_then(|name| Volume::ALL.into_iter().find(|volume| volume.name() == name));
            Some(known.ok_or_else(|| {
                invalid(
                    format!("Network {network}: \"socketVolume\" is {value}."),
                    "Write \"hook-sidecar-sockets\" (KubeVirt) or \"shared-dir\" (other pods), or leave the key out.",
                )
            })?)
        }
    };
    let fallback = match key("fallback").map(Value::as_str) {
        None | Some(Some("tap")) => Fallback::Tap,
        Some(Some("none")) => Fallback::None,
        Some(_) => {
            return Err(invalid(
                format!(
                    "Network {network}: \"fallback\" is {}.",
                    key("fallback").unwrap_or(&Value::Null)
                ),
                "Write \"tap\" (machines get a tap on nodes without DPDK) or \"none\" (such nodes refuse them), or leave the key out for \
                 \"tap\".",
            ));
        }
    };
    Ok(Kind::VhostUser(Asked {
        queues,
        volume,
        fallback,
        device_info: device_info(conf)?,
    }))
}

fn device_info(conf: &NetConf) -> Result<Option<PathBuf>, Error> {
    let runtime = conf.runtime_config.as_ref();
    let file = runtime.and_then(|runtime| runtime.custom.get("CNIDeviceInfoFile"));
    match file {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(path)) if path.is_empty() => Ok(None),
        Some(Value::String(path)) if path.starts_with('/') && !path.ends_with('/') => {
            Ok(Some(PathBuf::from(path)))
        }
        Some(other) => Err(invalid(
            format!(
                "Network {}: \"runtimeConfig.CNIDeviceInfoFile\" is {other}.",
                conf.name
            ),
            "The runtime must give the absolute path of a file (device information specification, section \"CNI\").",
        )),
    }
}

fn invalid(cause: String, remedy: &str) -> Error {
    Error::new(code::INVALID_CONFIG, cause, remedy)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn of(keys: &Value) -> Result<Kind, Error> {
        let mut config = json!({"cniVersion": "1.1.0", "name": "fast", "type": "outboard"});
        config
            .as_object_mut()
            .unwrap()
            .extend(keys.as_object().unwrap().clone());
        kind(&serde_json::from_value(config).unwrap())
    }

    #[test]
    fn a_configuration_without_a_kind_is_as_it_always_was() {
        assert_eq!(of(&json!({})), Ok(Kind::Netns));
        assert_eq!(of(&json!({"kind": null, "queues": null})), Ok(Kind::Netns));
        let file = json!({"runtimeConfig": {"CNIDeviceInfoFile": 7}});
        assert_eq!(of(&file), Ok(Kind::Netns));
    }

    #[test]
    fn all_keys_are_read() {
        let asked = Asked {
            queues: 4,
            volume: Some(Volume::SharedDir),
            fallback: Fallback::None,
            device_info: Some("/var/run/k8s.cni.cncf.io/devinfo/cni/x".into()),
        };
        let keys = json!({"kind": "vhostuser", "queues": 4, "socketVolume": "shared-dir",
            "fallback": "none", "runtimeConfig": {"CNIDeviceInfoFile": "/var/run/k8s.cni.cncf.io/devinfo/cni/x"}});
        assert_eq!(of(&keys), Ok(Kind::VhostUser(asked)));
        let plain = Asked {
            queues: 1,
            volume: None,
            fallback: Fallback::Tap,
            device_info: None,
        };
        assert_eq!(
            of(&json!({"kind": "vhostuser"})),
            Ok(Kind::VhostUser(plain))
        );
    }

    #[rstest]
    #[case(json!({"kind": "vhost"}), "\"kind\" is \"vhost\"")]
    #[case(json!({"kind": 1}), "\"kind\" is 1")]
    #[case(json!({"kind": "vhostuser", "queues": 0}), "\"queues\" is 0")]
    #[case(json!({"kind": "vhostuser", "queues": 257}), "\"queues\" is 257")]
    #[case(json!({"kind": "vhostuser", "queues": "2"}), "\"queues\" is \"2\"")]
    #[case(json!({"kind": "vhostuser", "socketVolume": "../x"}), "\"socketVolume\" is \"../x\"")]
    #[case(json!({"kind": "vhostuser", "fallback": "veth"}), "\"fallback\" is \"veth\"")]
    #[case(json!({"kind": "vhostuser", "fallback": true}), "\"fallback\" is true")]
    #[case(json!({"fallback": "tap"}), "without \"kind\"")]
    #[case(json!({"queues": 2}), "without \"kind\"")]
    #[case(json!({"socketVolume": "shared-dir"}), "without \"kind\"")]
    #[case(json!({"kind": "vhostuser", "runtimeConfig": {"CNIDeviceInfoFile": "x"}}), "CNIDeviceInfoFile")]
    fn a_bad_key_is_named(#[case] keys: Value, #[case] says: &str) {
        let error = of(&keys).unwrap_err();
        assert_eq!(error.code, code::INVALID_CONFIG, "{error}");
        assert!(
            error.cause.contains(says) && error.cause.contains("fast") && !error.remedy.is_empty(),
            "{error}"
        );
    }
}
