//! Static addresses in what cloud-init is told, if the VM's author asks for them. Pure.
//!
//! For guests that do not use DHCP. The addresses are the annotation's, not the CNI's: KubeVirt hands a
//! binding plugin none, and a guest must not learn them from a pod that it outlives.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::annotation::CLOUD_INIT;
use crate::resolver::Nic;
use crate::vmi::Vmi;

/// What is asked for one interface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// With their prefix lengths.
    pub addresses: Vec<IpNet>,
    /// Default gateways, one per family at most.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Name servers.
    #[serde(default)]
    pub nameservers: Vec<IpAddr>,
}

/// Why cloud-init can't be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The annotation.
    #[error(
        "annotation {CLOUD_INIT} of the VM: {0}; it is a JSON object such as {{\"net1\": {{\"addresses\": [\"10.0.0.5/24\"], \"gateways\": [\"10.0.0.1\"]}}}}"
    )]
    Annotation(String),
    /// What virt-launcher sent.
    #[error(
        "the cloud-init data that virt-launcher sent can't be read: {0}; it may be of a KubeVirt that this shim does not know"
    )]
    Data(String),
    /// The VM says it itself.
    #[error(
        "the VM has networkData of its own, and annotation {CLOUD_INIT}; remove one of the two"
    )]
    Both,
    /// Another format.
    #[error(
        "annotation {CLOUD_INIT} needs cloudInitNoCloud: a configDrive has another format for networks"
    )]
    ConfigDrive,
}

/// What virt-launcher sends and gets: CloudInitData and its older form, as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// `CloudInitData`.
    pub data: Vec<u8>,
    /// `CloudInitNoCloudSource`.
    pub no_cloud: Vec<u8>,
}

/// What the annotation asks for, by interface; empty without one.
///
/// # Errors
///
/// [`Error::Annotation`].
pub fn asked(vmi: &Vmi) -> Result<BTreeMap<String, Asked>, Error> {
    let Some(text) = vmi.annotation(CLOUD_INIT) else {
        return Ok(BTreeMap::new());
    };
    let asked: BTreeMap<String, Asked> =
        serde_json::from_str(text).map_err(|error| Error::Annotation(error.to_string()))?;
    for (name, one) in &asked {
        for v4 in [true, false] {
            if one.gateways.iter().filter(|g| g.is_ipv4() == v4).count() > 1 {
                let fault = format!("{name} has two gateways of one family");
                return Err(Error::Annotation(fault));
            }
        }
        if one.addresses.is_empty() {
            return Err(Error::Annotation(format!("{name} has no addresses")));
        }
    }
    Ok(asked)
}

/// The data with the addresses in them; unchanged if nothing is asked.
///
/// # Errors
///
/// Every [`Error`].
pub fn tell(sent: Data, asked: &BTreeMap<String, Asked>, nics: &[Nic]) -> Result<Data, Error> {
    if asked.is_empty() {
        return Ok(sent);
    }
    let unknown = asked
        .keys()
        .find(|name| nics.iter().all(|nic| nic.name != **name));
    if let Some(name) = unknown {
        let fault = format!("{name} is no interface of this binding");
        return Err(Error::Annotation(fault));
    }
    let networks = network_config(asked, nics);
    let mut data = object(&sent.data)?;
    if data
        .get("ConfigDriveMetaData")
        .is_some_and(|v| !v.is_null())
    {
        return Err(Error::ConfigDrive);
    }
    put(&mut data, "NetworkData", &networks)?;
    let mut no_cloud = object(&sent.no_cloud)?;
    put(&mut no_cloud, "networkData", &networks)?;
    Ok(Data {
        data: Value::Object(data).to_string().into_bytes(),
        no_cloud: Value::Object(no_cloud).to_string().into_bytes(),
    })
}

fn object(json: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(json).map_err(|error| Error::Data(error.to_string()))
}

fn put(data: &mut Map<String, Value>, key: &str, networks: &str) -> Result<(), Error> {
    let there = data.get(key).and_then(Value::as_str).unwrap_or_default();
    if !there.trim().is_empty() && there != networks {
        return Err(Error::Both);
    }
    data.insert(key.into(), networks.into());
    Ok(())
}

/// cloud-init's network-config, version 2; as JSON, which is YAML too.
fn network_config(asked: &BTreeMap<String, Asked>, nics: &[Nic]) -> String {
    let mut ethernets = Map::new();
    for nic in nics {
        let Some(one) = asked.get(&nic.name) else {
            continue;
        };
        let default = |gateway: &IpAddr| {
            if gateway.is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            }
        };
        let route = |gateway: &IpAddr| json!({"to": default(gateway), "via": gateway.to_string()});
        let mut ethernet = json!({
            "match": {"macaddress": nic.mac},
            "addresses": one.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        if !one.gateways.is_empty() {
            ethernet["routes"] = one.gateways.iter().map(route).collect();
        }
        if !one.nameservers.is_empty() {
            let servers = one.nameservers.iter().map(ToString::to_string);
            ethernet["nameservers"] = json!({"addresses": servers.collect::<Vec<_>>()});
        }
        if let Some(mtu) = nic.mtu {
            ethernet["mtu"] = mtu.into();
        }
        ethernets.insert(nic.name.clone(), ethernet);
    }
    json!({"version": 2, "ethernets": ethernets}).to_string()
}
