//! A Service's rows: one load balancer per protocol, in the default VPC's group.
//!
//! As kube-proxy does it: ready endpoints count (`publishNotReadyAddresses` is already in a slice's
//! `ready`, and honoured again here); where there is none, those that still serve while they
//! terminate; where there is none of those either, connections are refused, not dropped.
//!
//! What differs: `internalTrafficPolicy: Local` is treated as `Cluster`, for OVN has no load
//! balancing per chassis on stock 23.03; `externalTrafficPolicy` is about NodePorts and load
//! balancers' addresses, which are not served here. Headless and ExternalName Services have no
//! virtual address and no rows.

use crate::index::{EndpointEntry, Index, Protocol, ServiceEntry, ServicePortEntry, SliceEntry};
use crate::rows::{DesiredRow, Problem, RowId};
use api::names::{self, DEFAULT_VPC};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// OpenFlow's idle timeout has 16 bits; Kubernetes allows a day.
const LONGEST_AFFINITY: u32 = 65_535;

/// The rows of the Service `ns`/`name`.
pub fn desired(index: &Index, ns: &str, name: &str) -> Result<Vec<DesiredRow>, Problem> {
    let key = (ns.to_owned(), name.to_owned());
    let Some(service) = index.services.get(&key) else {
        return Ok(Vec::new());
    };
    let slices: Vec<&SliceEntry> = index.slices_of(&key).collect();
    let rows = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .filter_map(|protocol| {
            let vips = vips(service, protocol, &slices);
            let id = format!("{ns}/{name}/{}", protocol.as_str());
            (!vips.is_empty()).then(|| {
                DesiredRow::new("Load_Balancer", id.as_str())
                    .set("name", id.as_str())
                    .set("protocol", protocol.as_str())
                    .set("vips", vips)
                    .set("options", options(service))
                    .parent(group(), "load_balancer")
            })
        });
    Ok(rows.collect())
}

fn group() -> RowId {
    RowId::new(
        "Load_Balancer_Group",
        names::load_balancer_group(DEFAULT_VPC),
    )
}

fn options(service: &ServiceEntry) -> BTreeMap<String, String> {
    let ips: Vec<String> = service
        .cluster_ips
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut options = BTreeMap::from([
        ("reject".to_owned(), "true".to_owned()),
        // A pod that reaches itself through the Service sees the Service as its peer.
        ("hairpin_snat_ip".to_owned(), ips.join(" ")),
    ]);
    if let Some(seconds) = service.affinity {
        let seconds = seconds.clamp(1, LONGEST_AFFINITY);
        options.insert("affinity_timeout".to_owned(), seconds.to_string());
    }
    options
}

/// Virtual addresses with their backends, as OVN spells both. No backends: the empty string.
fn vips(
    service: &ServiceEntry,
    protocol: Protocol,
    slices: &[&SliceEntry],
) -> BTreeMap<String, String> {
    let mut vips = BTreeMap::new();
    for port in service
        .ports
        .iter()
        .filter(|port| port.protocol == protocol)
    {
        for ip in &service.cluster_ips {
            let backends = backends(service, port, *ip, slices);
            let backends: Vec<String> = backends.iter().map(ToString::to_string).collect();
            vips.insert(
                SocketAddr::new(*ip, port.port).to_string(),
                backends.join(","),
            );
        }
    }
    vips
}

/// The endpoints behind one port of one virtual address: those of its family, sorted.
fn backends(
    service: &ServiceEntry,
    port: &ServicePortEntry,
    vip: IpAddr,
    slices: &[&SliceEntry],
) -> BTreeSet<SocketAddr> {
    let pick = |counts: &dyn Fn(&EndpointEntry) -> bool| -> BTreeSet<SocketAddr> {
        let of_family = slices.iter().filter(|slice| slice.ipv6 == vip.is_ipv6());
        of_family
            .flat_map(|slice| {
                let numbers = slice
                    .ports
                    .iter()
                    .filter(|(name, protocol, _)| *name == port.name && *protocol == port.protocol)
                    .map(|(_, _, number)| *number);
                numbers.flat_map(|number| {
                    let endpoints = slice.endpoints.iter().filter(|endpoint| counts(endpoint));
                    endpoints.map(move |endpoint| SocketAddr::new(endpoint.address, number))
                })
            })
            .collect()
    };
    let ready = pick(&|endpoint| endpoint.ready || service.publish_not_ready);
    if !ready.is_empty() {
        return ready;
    }
    pick(&|endpoint| endpoint.serving && endpoint.terminating)
}

#[cfg(test)]
mod tests;
