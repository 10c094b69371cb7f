//! The custom resource Subnet: a logical switch with addresses to give out.

#![expect(
    unreachable_pub,
    reason = "the derives write pub items into closed modules"
)]

use crate::names::DEFAULT_VPC;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A range of addresses in a Vpc, and who may use it: a logical switch and its router port.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "iaas.yusur.io",
    version = "v1",
    kind = "Subnet",
    plural = "subnets",
    category = "outboard",
    status = "SubnetStatus",
    derive = "PartialEq",
    selectable = ".spec.vpc",
    doc = "A range of addresses in a Vpc, and who may use it: a logical switch and its router port.",
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63")
        .message("the name of a Subnet is a DNS label: up to 63 lower-case letters, digits and dashes"),
    validation = Rule::new("self.metadata.name != 'node'")
        .message("the name \"node\" is taken by the ports of nodes: choose another"),
    printcolumn(name = "VPC", type_ = "string", json_path = ".spec.vpc"),
    printcolumn(name = "CIDRs", type_ = "string", json_path = ".spec.cidrs"),
    printcolumn(name = "NAT", type_ = "boolean", json_path = ".spec.natOutgoing"),
    printcolumn(name = "V4Used", type_ = "integer", json_path = ".status.v4.used"),
    printcolumn(name = "V4Available", type_ = "integer", json_path = ".status.v4.available"),
    printcolumn(name = "V6Used", type_ = "integer", json_path = ".status.v6.used"),
    printcolumn(name = "V6Available", type_ = "integer", json_path = ".status.v6.available", priority = 1),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("self.gateways.all(g, !isIP(g) || self.cidrs.exists(c, isCIDR(c) && cidr(c).containsIP(g)))")
        .message("every gateway must lie in one of the cidrs"),
    validation = Rule::new("!self.natOutgoing || self.vpc == 'default'")
        .message("natOutgoing needs vpc \"default\": other VPCs have no way out"),
    validation = Rule::new("!self.primary || self.namespaces.size() > 0")
        .message("a primary subnet needs namespaces: the pods of those get their eth0 in it"),
    validation = Rule::new("!has(self.mtu) || self.mtu >= 1280 || !self.cidrs.exists(c, isCIDR(c) && cidr(c).ip().family() == 6)")
        .message("IPv6 needs an mtu of at least 1280")
)]
#[serde(rename_all = "camelCase")]
pub struct SubnetSpec {
    /// Name of the Vpc. Cannot change.
    #[serde(default = "default_vpc")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("vpc cannot change: make a new Subnet and move the pods to it"))]
    pub vpc: String,
    /// One IPv4 CIDR, or one IPv6 CIDR, or one of each. Cannot change.
    #[schemars(length(min = 1, max = 2), inner(length(max = 64)))]
    #[x_kube(
        validation = Rule::new("self == oldSelf").message("cidrs cannot change: make a new Subnet and move the pods to it"),
        validation = Rule::new("self.all(c, isCIDR(c))").message("every entry of cidrs must be a CIDR, as 10.244.0.0/16 or fd00:10:244::/64"),
        validation = Rule::new("self.all(c, !isCIDR(c) || cidr(c) == cidr(c).masked())").message("the bits of a CIDR behind its prefix must be zero, as in 10.244.0.0/16"),
        validation = Rule::new("self.filter(c, isCIDR(c) && cidr(c).ip().family() == 4).size() <= 1 && self.filter(c, isCIDR(c) && cidr(c).ip().family() == 6).size() <= 1").message("cidrs has at most one IPv4 and one IPv6 CIDR"),
        validation = Rule::new("self.all(c, !isCIDR(c) || (cidr(c).ip().family() == 4 ? cidr(c).prefixLength() >= 8 && cidr(c).prefixLength() <= 30 : cidr(c).prefixLength() >= 32 && cidr(c).prefixLength() <= 126))").message("the prefix of an IPv4 CIDR is 8 to 30 bits, that of an IPv6 CIDR 32 to 126"),
    )]
    pub cidrs: Vec<String>,
    /// Addresses of the router in this subnet, at most one a family. A family without one gets the
    /// first address of its CIDR. Cannot change.
    #[serde(default)]
    #[schemars(length(max = 2), inner(length(max = 64)))]
    #[x_kube(
        validation = Rule::new("self == oldSelf").message("gateways cannot change: make a new Subnet and move the pods to it"),
        validation = Rule::new("self.all(g, isIP(g))").message("every entry of gateways must be an IP address"),
        validation = Rule::new("self.filter(g, isIP(g) && ip(g).family() == 4).size() <= 1 && self.filter(g, isIP(g) && ip(g).family() == 6).size() <= 1").message("gateways has at most one IPv4 and one IPv6 address"),
    )]
    pub gateways: Vec<String>,
    /// Addresses never given out: single ones, ranges `a..b` (both ends included) and CIDRs.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(max = 96)))]
    #[x_kube(validation = Rule::new("self.all(e, isIP(e) || isCIDR(e) || (e.split('..').size() == 2 && e.split('..').all(a, isIP(a))))").message("every entry of excludes is an address, a range as 10.244.0.10..10.244.0.20, or a CIDR"))]
    pub excludes: Vec<String>,
    /// Namespaces whose pods may have interfaces here; `*` = all. Empty: none but those that get
    /// their eth0 here anyway (the cluster's default subnet).
    #[serde(default)]
    #[schemars(length(max = 1024), inner(length(max = 63)))]
    pub namespaces: Vec<String>,
    /// Whether pods of `namespaces` (those listed by name) get their eth0 here, not in `default`.
    #[serde(default)]
    pub primary: bool,
    /// Whether traffic from here to the outside of the cluster leaves with the node's address.
    #[serde(default)]
    pub nat_outgoing: bool,
    /// Whether Services can be reached from here. `false` keeps this subnet's traffic out of
    /// connection tracking, which some cards cannot offload.
    #[serde(default = "yes")]
    pub services: bool,
    /// Upper bound of the interfaces' MTU in bytes. Without it the nodes' underlay decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 576, max = 65535))]
    pub mtu: Option<u32>,
}

fn default_vpc() -> String {
    DEFAULT_VPC.to_owned()
}

fn yes() -> bool {
    true
}

impl SubnetSpec {
    /// A spec with these CIDRs in the default VPC, everything else as the API server would default.
    pub fn new(cidrs: impl IntoIterator<Item = ipnet::IpNet>) -> Self {
        Self {
            vpc: default_vpc(),
            cidrs: cidrs.into_iter().map(|cidr| cidr.to_string()).collect(),
            gateways: Vec::new(),
            excludes: Vec::new(),
            namespaces: Vec::new(),
            primary: false,
            nat_outgoing: false,
            services: true,
            mtu: None,
        }
    }

    /// Whether pods of `namespace` may have interfaces here.
    pub fn admits(&self, namespace: &str) -> bool {
        self.namespaces
            .iter()
            .any(|admitted| admitted == "*" || admitted == namespace)
    }

    /// Whether pods of `namespace` get their eth0 here instead of in the default subnet.
    pub fn is_primary_of(&self, namespace: &str) -> bool {
        self.primary && self.namespaces.iter().any(|listed| listed == namespace)
    }
}

/// What became of a Subnet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubnetStatus {
    /// IPv4 addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v4: Option<Usage>,
    /// IPv6 addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<Usage>,
    /// `Ready`: its rows are in OVN and addresses can be had.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How many addresses of one family are taken and left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Given out.
    pub used: i64,
    /// Left; more than an integer holds count as its largest value.
    pub available: i64,
}
