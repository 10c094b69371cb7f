//! Vpcs and Subnets as the index keeps them.

use api::{Layout, LayoutError, Subnet, SubnetSpec, Vpc, VpcSpec};
use ipnet::IpNet;
use std::net::IpAddr;

/// A Vpc.
#[derive(Clone, Debug, PartialEq)]
pub struct VpcEntry {
    /// The object's UID.
    pub uid: String,
    /// The object's generation, for `observedGeneration`.
    pub generation: i64,
    /// As written.
    pub spec: VpcSpec,
}

/// A Subnet.
#[derive(Clone, Debug, PartialEq)]
pub struct SubnetEntry {
    /// The object's UID.
    pub uid: String,
    /// The object's generation, for `observedGeneration`.
    pub generation: i64,
    /// As written.
    pub spec: SubnetSpec,
    /// The addresses, parsed.
    pub layout: Result<Layout, LayoutError>,
    /// Whether it is being deleted: nothing new is given out, what is there stays.
    pub deleting: bool,
    /// The object's finalizers.
    pub finalizers: Vec<String>,
}

impl From<&Vpc> for VpcEntry {
    fn from(vpc: &Vpc) -> Self {
        Self {
            uid: vpc.metadata.uid.clone().unwrap_or_default(),
            generation: vpc.metadata.generation.unwrap_or_default(),
            spec: vpc.spec.clone(),
        }
    }
}

impl From<&Subnet> for SubnetEntry {
    fn from(subnet: &Subnet) -> Self {
        Self {
            uid: subnet.metadata.uid.clone().unwrap_or_default(),
            generation: subnet.metadata.generation.unwrap_or_default(),
            layout: subnet.spec.layout(),
            spec: subnet.spec.clone(),
            deleting: subnet.metadata.deletion_timestamp.is_some(),
            finalizers: subnet.metadata.finalizers.clone().unwrap_or_default(),
        }
    }
}

/// The address in a join CIDR that nobody has: next hop of the router's default route. (Routing
/// precedes the policies that send a pod's packets to its own node: without any route they drop.)
/// It is the last host address; the pool of the join subnet never gives it out.
pub fn egress_hop(cidr: IpNet) -> IpAddr {
    match cidr {
        IpNet::V4(v4) => IpAddr::V4((u32::from(v4.broadcast()) - 1).into()),
        IpNet::V6(v6) => IpAddr::V6(v6.broadcast()),
    }
}
