//! What an interface is to look like: from the row's facts, the configuration and the node's MTU. Pure.

use std::net::IpAddr;

use api::{Mac, PortFacts, Route};
use cni_bin::cni::{CNIResult, Interface, IpConfig, Route as ResultRoute, SpecVersion};
use cni_bin::code;
use ipnet::IpNet;

use crate::attachment::AttachmentId;
use crate::call::{Add, Keys};
use crate::error::Error;
use crate::row::Row;

/// An interface in a pod, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wiring {
    pub(crate) id: AttachmentId,
    pub(crate) iface_id: String,
    pub(crate) mac: Mac,
    /// Bytes.
    pub(crate) mtu: u32,
    pub(crate) ips: Vec<IpNet>,
    pub(crate) gateways: Vec<IpAddr>,
    /// All routes, the default ones first.
    pub(crate) routes: Vec<Route>,
}

/// The wiring of an ADD whose row was found. `node_mtu`: what the underlay leaves for a packet.
pub(crate) fn wiring(add: &Add, row: &Row, node_mtu: u32) -> Result<Wiring, Error> {
    let facts = &row.facts;
    agree(&add.keys, &row.logical_port, facts.mac, &facts.ips)
        .map_err(|error| error.about(format!("Pod {}", add.pod)))?;
    Ok(Wiring {
        id: add.id.clone(),
        iface_id: row.logical_port.clone(),
        mac: facts.mac,
        mtu: [facts.mtu, add.keys.mtu]
            .into_iter()
            .flatten()
            .fold(node_mtu, u32::min),
        ips: facts.ips.clone(),
        gateways: facts.gateways.clone(),
        routes: routes(facts),
    })
}

/// All routes of a port, the default ones first.
pub(crate) fn routes(facts: &PortFacts) -> Vec<Route> {
    let defaults = facts
        .gateways
        .iter()
        .filter(|_| facts.default_route)
        .map(|via| Route {
            dst: if via.is_ipv4() { v4_any() } else { v6_any() },
            via: *via,
        });
    defaults.chain(facts.routes.iter().cloned()).collect()
}

/// What Multus passes was asked by annotation and allocated by cni-controller: here it can only agree or not.
pub(crate) fn agree(keys: &Keys, port: &str, mac: Mac, ips: &[IpNet]) -> Result<(), Error> {
    let refused = |key: &str, asked: &str, has: String| {
        Error::new(
            code::REFUSED,
            format!("\"runtimeConfig\" asks for {key} {asked}, but port {port} has {has}."),
            "Addresses are allocated when the pod is scheduled: ask for them in its annotations, then recreate the pod.",
        )
    };
    if let Some(asked) = &keys.mac
        && asked.parse() != Ok(mac)
    {
        return Err(refused("mac", asked, mac.to_string()));
    }
    let address = |text: &str| {
        text.split('/')
            .next()
            .and_then(|ip| ip.parse::<IpAddr>().ok())
    };
    match keys
        .ips
        .iter()
        .find(|ip| !ips.iter().any(|own| Some(own.addr()) == address(ip)))
    {
        None => Ok(()),
        Some(ip) => {
            let has: Vec<_> = ips.iter().map(ToString::to_string).collect();
            Err(refused("the address", ip, has.join(", ")))
        }
    }
}

/// The result of the ADD, after those of the plugins before us in a chain (CNI specification, section "ADD success").
pub(crate) fn result(wiring: &Wiring, add: &Add) -> CNIResult {
    let near = Interface {
        name: wiring.id.host_link(),
        mac: String::new(),
        mtu: Some(wiring.mtu),
        sandbox: None,
        socket_path: None,
        pci_id: None,
    };
    result_after(Some(near), None, wiring, add)
}

/// The same with another end on the host, or none, and a pod's interface that is a function of a card.
pub(crate) fn result_after(
    near: Option<Interface>,
    pci_id: Option<String>,
    wiring: &Wiring,
    add: &Add,
) -> CNIResult {
    let mut result = add.prev_result.clone().unwrap_or_default();
    result.interfaces.extend(near);
    let index = u32::try_from(result.interfaces.len()).ok();
    result.interfaces.push(Interface {
        name: wiring.id.ifname.clone(),
        mac: wiring.mac.to_string(),
        mtu: Some(wiring.mtu),
        sandbox: Some(add.netns.display().to_string()),
        socket_path: None,
        pci_id,
    });
    result.ips.extend(wiring.ips.iter().map(|ip| {
        IpConfig {
            interface: index,
            address: *ip,
            gateway: wiring
                .gateways
                .iter()
                .copied()
                .find(|gateway| ip.contains(gateway)),
        }
    }));
    result
        .routes
        .extend(wiring.routes.iter().map(|route| ResultRoute {
            dst: route.dst,
            gw: Some(route.via),
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }));
    result
}

/// The document that the plugin prints.
pub(crate) fn document(
    version: SpecVersion,
    result: &CNIResult,
) -> Result<Box<serde_json::value::RawValue>, Error> {
    cni_bin::cni::render(version, result).map_err(|why| {
        Error::new(
            code::DECODING_FAILURE,
            format!("The result cannot be written: {why}."),
            "Report this.",
        )
    })
}

fn v4_any() -> IpNet {
    IpNet::V4(ipnet::Ipv4Net::default())
}

fn v6_any() -> IpNet {
    IpNet::V6(ipnet::Ipv6Net::default())
}
