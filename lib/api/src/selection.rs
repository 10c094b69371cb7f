//! The pod annotation `k8s.v1.cni.cncf.io/networks`, in both of its forms.
//!
//! Network Plumbing Working Group's specification 1.3, section 4.1: a JSON list of elements, or
//! `[<namespace>/]<name>[@<interface>]` separated by commas. A request of the user, proof of nothing.

use crate::Mac;
use serde::Deserialize;
use std::net::IpAddr;

/// One element: a network that the pod asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Namespace of the NetworkAttachmentDefinition.
    pub namespace: String,
    /// Name of the NetworkAttachmentDefinition.
    pub name: String,
    /// Name of the interface in the pod: the requested one, else net<position in the whole list>.
    pub ifname: String,
    /// Requested addresses, as written: another plugin may understand forms that we do not.
    pub ips: Vec<String>,
    /// Whether they are of the annotation `iaas.yusur.io/network-ips`, which no other plugin reads.
    pub by_machine: bool,
    /// Requested MAC address, as written.
    pub mac: Option<String>,
}

/// Why the annotation, or a request in it, cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// Neither of the two forms.
    #[error("annotation k8s.v1.cni.cncf.io/networks: {0}")]
    Form(String),
    /// The annotation of a VM with the addresses for them.
    #[error("annotation iaas.yusur.io/network-ips: {0}")]
    Machine(String),
    /// An address that is none.
    #[error("network {network}: {ip:?} in ips is not an IP address: write 10.1.2.3 or 10.1.2.3/24")]
    Ip {
        /// The network's `<namespace>/<name>`.
        network: String,
        /// What was written.
        ip: String,
    },
    /// Two addresses of one family.
    #[error(
        "network {network}: ips has two addresses of one family: an interface gets one IPv4 and/or one IPv6 address"
    )]
    TwoOfOneFamily {
        /// The network's `<namespace>/<name>`.
        network: String,
    },
    /// A MAC address that is none, or none for an interface.
    #[error(
        "network {network}: mac {mac:?} is not a unicast MAC address: write it as 0a:58:0a:f4:00:05"
    )]
    Mac {
        /// The network's `<namespace>/<name>`.
        network: String,
        /// What was written.
        mac: String,
    },
}

#[derive(Deserialize)]
struct Element {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    interface: Option<String>,
    #[serde(default)]
    ips: Option<Vec<String>>,
    #[serde(default)]
    mac: Option<String>,
}

/// The elements of the annotation of a pod in `pod_namespace`.
pub fn selections(annotation: &str, pod_namespace: &str) -> Result<Vec<Selection>, SelectionError> {
    let text = annotation.trim();
    let elements = if text.is_empty() {
        Vec::new()
    } else if text.contains(['[', '{', '"']) {
        serde_json::from_str(text).map_err(|error| {
            SelectionError::Form(format!(
                "it looks like JSON but is no list of elements: {error}"
            ))
        })?
    } else {
        text.split(',').map(short_form).collect::<Result<_, _>>()?
    };
    let selections: Vec<Selection> = elements
        .into_iter()
        .enumerate()
        .map(|(index, element)| select(element, pod_namespace, index + 1))
        .collect::<Result<_, _>>()?;
    for (index, selection) in selections.iter().enumerate() {
        if selections[..index]
            .iter()
            .any(|earlier| earlier.ifname == selection.ifname)
        {
            return Err(SelectionError::Form(format!(
                "two networks ask for the interface {}: give each its own \"interface\"",
                selection.ifname
            )));
        }
    }
    Ok(selections)
}

fn short_form(item: &str) -> Result<Element, SelectionError> {
    let item = item.trim();
    let (path, interface) = match item.split_once('@') {
        Some((path, interface)) => (path, Some(interface.trim().to_owned())),
        None => (item, None),
    };
    let (namespace, name) = match path.split_once('/') {
        Some((namespace, name)) => (Some(namespace.trim().to_owned()), name.trim()),
        None => (None, path.trim()),
    };
    let namespace_ok = namespace.as_deref().is_none_or(is_name);
    if !is_name(name) || !namespace_ok {
        return Err(SelectionError::Form(format!(
            "{item:?} is not of the form [namespace/]name[@interface]"
        )));
    }
    Ok(Element {
        name: name.to_owned(),
        namespace,
        interface,
        ips: None,
        mac: None,
    })
}

fn select(
    element: Element,
    pod_namespace: &str,
    position: usize,
) -> Result<Selection, SelectionError> {
    let namespace = element
        .namespace
        .filter(|ns| !ns.is_empty())
        .unwrap_or_else(|| pod_namespace.to_owned());
    if !is_name(&element.name) || !is_name(&namespace) {
        return Err(SelectionError::Form(format!(
            "{namespace}/{} is no name of a NetworkAttachmentDefinition",
            element.name
        )));
    }
    let ifname = match element.interface.filter(|interface| !interface.is_empty()) {
        Some(ifname) if is_free_ifname(&ifname) => ifname,
        Some(ifname) => {
            return Err(SelectionError::Form(format!(
                "interface {ifname:?} cannot be had: a name has up to 15 letters, digits, '.', '_' or '-', and eth0 and lo are taken"
            )));
        }
        None => format!("net{position}"),
    };
    Ok(Selection {
        namespace,
        name: element.name,
        ifname,
        ips: element.ips.unwrap_or_default(),
        by_machine: false,
        mac: element.mac.filter(|mac| !mac.is_empty()),
    })
}

/// A DNS-1123 subdomain, as names of Kubernetes objects are.
fn is_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    let outer = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 253 && name.starts_with(outer) && name.ends_with(outer) && name.bytes().all(inner)
}

fn is_free_ifname(name: &str) -> bool {
    !matches!(name, "" | "." | ".." | "eth0" | "lo")
        && name.len() <= 15
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

impl Selection {
    /// `<namespace>/<name>` of the definition.
    pub fn network(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The requested addresses: at most one a family. A prefix length is accepted and ignored:
    /// the subnet's counts.
    pub fn addresses(&self) -> Result<Vec<IpAddr>, SelectionError> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for ip in &self.ips {
            let address = parse_address(ip).ok_or_else(|| SelectionError::Ip {
                network: self.network(),
                ip: ip.clone(),
            })?;
            if addresses
                .iter()
                .any(|other| other.is_ipv4() == address.is_ipv4())
            {
                return Err(SelectionError::TwoOfOneFamily {
                    network: self.network(),
                });
            }
            addresses.push(address);
        }
        addresses.sort();
        Ok(addresses)
    }

    /// The requested MAC address.
    pub fn mac(&self) -> Result<Option<Mac>, SelectionError> {
        let Some(text) = &self.mac else {
            return Ok(None);
        };
        match text.parse::<Mac>() {
            Ok(mac) if mac.is_unicast() => Ok(Some(mac)),
            _ => Err(SelectionError::Mac {
                network: self.network(),
                mac: text.clone(),
            }),
        }
    }
}

fn parse_address(text: &str) -> Option<IpAddr> {
    match text.split_once('/') {
        None => text.parse().ok(),
        Some(_) => text.parse::<ipnet::IpNet>().ok().map(|net| net.addr()),
    }
}
