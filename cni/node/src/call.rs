//! What a runtime asks: a wire request → a typed call. Pure; every error names the variable or key.

use std::path::PathBuf;

use cni_bin::cni::{
    CNI_ARGS, CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS, CNIResult, ContainerId, GcAttachment,
    InterfaceName, NetConf, SpecVersion,
};
use cni_bin::wire::{Command, Request};
use cni_bin::{args, code};
use serde::Deserialize;
use serde_json::Value;

use crate::attachment::{AttachmentId, Pod};
use crate::error::Error;
use crate::vhostuser::Kind;
use crate::vhostuser::asked::kind;

/// A call of one verb, validated.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Add(Box<Add>),
    Del {
        id: AttachmentId,
    },
    Check(Box<Check>),
    Gc {
        network: String,
        valid: Option<Vec<AttachmentId>>,
    },
    /// The kind of interface that the network plugs.
    Status(Kind),
}

/// An ADD.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Add {
    pub(crate) id: AttachmentId,
    pub(crate) network: String,
    pub(crate) version: SpecVersion,
    pub(crate) netns: PathBuf,
    pub(crate) pod: Pod,
    pub(crate) keys: Keys,
    /// The result of the plugin before us in a chain.
    pub(crate) prev_result: Option<CNIResult>,
}

/// A CHECK.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Check {
    pub(crate) id: AttachmentId,
    pub(crate) netns: PathBuf,
    pub(crate) prev_result: CNIResult,
}

/// Our own keys of a network configuration and of its `runtimeConfig`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Keys {
    /// `subnet`: the Subnet that the interface must be in; none = the pod's default.
    pub(crate) subnet: Option<String>,
    /// `mtu`: an upper bound in bytes.
    pub(crate) mtu: Option<u32>,
    /// `runtimeConfig.mac`: what Multus was asked for; the allocation must agree.
    pub(crate) mac: Option<String>,
    /// `runtimeConfig.ips`, likewise.
    pub(crate) ips: Vec<String>,
    /// `kind`, with what belongs to it.
    pub(crate) kind: Kind,
    /// `runtimeConfig.deviceID` or `deviceID`: the card's function that a device plugin has given to the pod.
    pub(crate) device: Option<String>,
}

/// Whether a configuration may name a function of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Devices {
    /// This node has no card: it plugs veth interfaces only.
    None,
    /// Its pods are given functions of a card.
    Functions,
}

impl Call {
    /// Reads a request.
    pub(crate) fn parse(request: &Request, devices: Devices) -> Result<Self, Error> {
        let (conf, version) = cni_bin::conf::parse(request.command, &request.config)?;
        match request.command {
            Command::Add => {
                let keys = keys(&conf, devices)?;
                Ok(Self::Add(Box::new(Add {
                    id: attachment(request)?,
                    netns: netns(request)?,
                    pod: pod(request)?,
                    network: conf.name,
                    version,
                    keys,
                    prev_result: conf.prev_result,
                })))
            }
            Command::Del => Ok(Self::Del {
                id: attachment(request)?,
            }),
            Command::Check => Ok(Self::Check(Box::new(Check {
                id: attachment(request)?,
                netns: netns(request)?,
                prev_result: conf.prev_result.unwrap_or_default(),
            }))),
            Command::Gc => Ok(Self::Gc {
                network: conf.name,
                valid: conf
                    .valid_attachments
                    .map(|list| list.into_iter().map(listed).collect()),
            }),
            Command::Status => Ok(Self::Status(kind(&conf)?)),
        }
    }
}

fn listed(attachment: GcAttachment) -> AttachmentId {
    AttachmentId {
        container: attachment.container_id,
        ifname: attachment.ifname,
    }
}

fn attachment(request: &Request) -> Result<AttachmentId, Error> {
    let container = required(request, CNI_CONTAINERID)?;
    let container: ContainerId = container.parse().map_err(|_| {
        environment(
            format!("{CNI_CONTAINERID} is {container:?}, which is no container ID."),
            "It is made of letters, digits, \"_\", \".\" and \"-\" and starts with a letter or digit.",
        )
    })?;
    let ifname = required(request, CNI_IFNAME)?;
    let ifname: InterfaceName = ifname.parse().map_err(|_| {
        environment(
            format!("{CNI_IFNAME} is {ifname:?}, which is no name of a network interface."),
            "It has 1 to 15 characters without \"/\", \":\" and blanks, and is neither \".\" nor \"..\".",
        )
    })?;
    Ok(AttachmentId {
        container: container.to_string(),
        ifname: ifname.to_string(),
    })
}

fn netns(request: &Request) -> Result<PathBuf, Error> {
    let path = PathBuf::from(required(request, CNI_NETNS)?);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(environment(
        format!(
            "{CNI_NETNS} is {}, which is not an absolute path.",
            path.display()
        ),
        "The runtime must give the path of the sandbox's network namespace.",
    ))
}

fn pod(request: &Request) -> Result<Pod, Error> {
    let arguments = args::parse(request.var(CNI_ARGS).unwrap_or_default())
        .map_err(|why| environment(format!("{why}."), why.remedy()))?;
    let argument = |name: &str| match arguments.get(name) {
        Some(value) if !value.is_empty() => Ok((*value).to_owned()),
        _ => Err(environment(
            format!("{CNI_ARGS} has no {name}: the pod cannot be told."),
            "The runtime must pass the pod's identity as kubelet's runtimes do: K8S_POD_NAMESPACE, K8S_POD_NAME and \
             K8S_POD_UID.",
        )),
    };
    Ok(Pod {
        namespace: argument("K8S_POD_NAMESPACE")?,
        name: argument("K8S_POD_NAME")?,
        uid: argument("K8S_POD_UID")?,
    })
}

fn keys(conf: &NetConf, devices: Devices) -> Result<Keys, Error> {
    #[derive(Default, Deserialize)]
    struct Runtime {
        #[serde(default)]
        mac: Option<String>,
        #[serde(default)]
        ips: Vec<String>,
        #[serde(default, rename = "deviceID")]
        device: Option<String>,
    }
    let network = &conf.name;
    if let Some(ipam) = conf.ipam.as_ref().filter(|ipam| !ipam.r#type.is_empty()) {
        return Err(Error::new(
            code::UNSUPPORTED_FIELD,
            format!(
                "Network {network}: \"ipam\" is {:?}, which outboard does not call.",
                ipam.r#type
            ),
            "Remove the key: cni-controller allocates the addresses of the network's Subnet.",
        ));
    }
    let runtime: Runtime = match &conf.runtime_config {
        None => Runtime::default(),
        Some(runtime) => {
            serde_json::from_value(Value::Object(runtime.custom.clone().into_iter().collect()))
                .map_err(|why| {
                    invalid(
                        format!("Network {network}: \"runtimeConfig\" cannot be read: {why}."),
                        "\"mac\" is a text and \"ips\" a list of texts.",
                    )
                })?
        }
    };
    let device = runtime.device.filter(|device| !device.is_empty());
    if let Some(device) = device.as_ref().filter(|_| devices == Devices::None) {
        return Err(Error::new(
            code::UNSUPPORTED_FIELD,
            format!(
                "Network {network}: \"deviceID\" is {device:?}, but this node plugs veth interfaces only."
            ),
            "Remove the resource from the NetworkAttachmentDefinition.",
        ));
    }
    let kind = kind(conf)?;
    if kind != Kind::Netns && devices == Devices::Functions {
        return Err(Error::new(
            code::UNSUPPORTED_FIELD,
            format!(
                "Network {network}: \"kind\" is \"vhostuser\", but this node's pods are given functions of a card."
            ),
            "Let pods with vhost-user interfaces run on nodes without a DPU, or give the machine a function of the card.",
        ));
    }
    let subnet = match conf.custom.get("subnet") {
        None | Some(Value::Null) => None,
        Some(Value::String(subnet)) if !subnet.is_empty() => Some(subnet.clone()),
        Some(other) => {
            return Err(invalid(
                format!("Network {network}: \"subnet\" is {other}."),
                "Write the name of a Subnet, or leave the key out for the pod's default subnet.",
            ));
        }
    };
    let mtu = match conf.custom.get("mtu") {
        None | Some(Value::Null) => None,
        Some(value) => match value.as_u64().and_then(|mtu| u32::try_from(mtu).ok()) {
            Some(0) => None,
            Some(mtu @ 576..=65_535) => Some(mtu),
            _ => {
                return Err(invalid(
                    format!("Network {network}: \"mtu\" is {value}."),
                    "Write a number from 576 to 65535, or leave the key out.",
                ));
            }
        },
    };
    let mac = runtime.mac.filter(|mac| !mac.is_empty());
    let of_config = || match conf.custom.get("deviceID") {
        Some(Value::String(device)) if !device.is_empty() => Some(device.clone()),
        _ => None,
    };
    Ok(Keys {
        subnet,
        mtu,
        mac,
        ips: runtime.ips,
        kind,
        device: device.or_else(of_config),
    })
}

fn required<'a>(request: &'a Request, name: &str) -> Result<&'a str, Error> {
    request.var(name).ok_or_else(|| {
        environment(
            format!("{name} is not set, and {} needs it.", request.command),
            "The runtime must set it (CNI specification, section \"Parameters\").",
        )
    })
}

fn environment(cause: String, remedy: &str) -> Error {
    Error::new(code::INVALID_ENVIRONMENT, cause, remedy)
}

fn invalid(cause: String, remedy: &str) -> Error {
    Error::new(code::INVALID_CONFIG, cause, remedy)
}

#[cfg(test)]
mod tests;
