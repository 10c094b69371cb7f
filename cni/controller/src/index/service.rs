//! Services and EndpointSlices as the index keeps them.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::net::IpAddr;

/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// As OVN spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

/// A Service with cluster addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// The object's UID.
    pub uid: String,
    /// Its virtual addresses: one or two.
    pub cluster_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePortEntry>,
    /// `sessionAffinity: ClientIP` and its timeout in seconds.
    pub affinity: Option<u32>,
    /// Whether endpoints count before they are ready.
    pub publish_not_ready: bool,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortEntry {
    /// Its name; empty if it has none. EndpointSlices name their ports alike.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The virtual port.
    pub port: u16,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEntry {
    /// Whether its addresses are IPv6 (else IPv4). FQDN slices are not kept.
    pub ipv6: bool,
    /// Name, protocol and number of its ports; the name is empty if there is none.
    pub ports: Vec<(String, Protocol, u16)>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointEntry>,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointEntry {
    /// The first of its addresses: consumers use that one alone (EndpointSlice API).
    pub address: IpAddr,
    /// Condition `ready`; unknown counts as true.
    pub ready: bool,
    /// Condition `serving`; unknown counts as `ready`.
    pub serving: bool,
    /// Condition `terminating`; unknown counts as false.
    pub terminating: bool,
}

impl ServiceEntry {
    /// The entry, or none for a Service without virtual addresses (headless, ExternalName).
    pub fn from_service(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        let mut cluster_ips: Vec<IpAddr> = spec
            .cluster_ips
            .iter()
            .flatten()
            .filter_map(|ip| ip.parse().ok())
            .collect();
        if cluster_ips.is_empty() {
            cluster_ips.extend(
                spec.cluster_ip
                    .as_deref()
                    .and_then(|ip| ip.parse::<IpAddr>().ok()),
            );
        }
        if cluster_ips.is_empty() {
            return None;
        }
        let by_client = spec.session_affinity.as_deref() == Some("ClientIP");
        let timeout = spec
            .session_affinity_config
            .as_ref()
            .and_then(|config| config.client_ip.as_ref())
            .and_then(|client| client.timeout_seconds)
            .and_then(|seconds| u32::try_from(seconds).ok());
        let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        Some(Self {
            uid: service.metadata.uid.clone().unwrap_or_default(),
            cluster_ips,
            ports: spec
                .ports
                .iter()
                .flatten()
                .filter_map(|port| {
                    Some(ServicePortEntry {
                        name: port.name.clone().unwrap_or_default(),
                        protocol: Protocol::parse(port.protocol.as_deref())?,
                        port: u16::try_from(port.port).ok()?,
                    })
                })
                .collect(),
            affinity: by_client.then_some(timeout.unwrap_or(10_800)),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
            internal_local: local(&spec.internal_traffic_policy),
            external_local: local(&spec.external_traffic_policy),
        })
    }
}

impl SliceEntry {
    /// The name of the Service and the entry, or none for a slice of no Service or of FQDNs.
    pub fn from_slice(slice: &EndpointSlice) -> Option<(String, Self)> {
        let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?.clone();
        let ipv6 = match slice.address_type.as_str() {
            "IPv4" => false,
            "IPv6" => true,
            _ => return None,
        };
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            Some((
                port.name.clone().unwrap_or_default(),
                Protocol::parse(port.protocol.as_deref())?,
                u16::try_from(port.port?).ok()?,
            ))
        });
        let endpoints = slice.endpoints.iter().filter_map(|endpoint| {
            let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            (address.is_ipv6() == ipv6).then_some(EndpointEntry {
                address,
                ready,
                serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
                terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
            })
        });
        let entry = Self {
            ipv6,
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        };
        Some((service, entry))
    }
}
