//! Reading facts from a row's external_ids.

use super::{
    DEFAULT_ROUTE, FactError, GATEWAYS, IPS, JOIN_CIDRS, MAC, MARKER_PREFIX, MTU, MigrationTarget,
    NAT_CIDRS, NodeFacts, POD_CIDRS, PodPort, PortFacts, ROUTES, Role, Route, SERVICE_CIDRS,
    SUBNET, TAG_HOST, TAG_IFNAME, TAG_POD, TAG_ROLE, TAG_TARGET, TAG_TARGET_UID, TAG_UID,
};
use crate::Mac;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

impl PortFacts {
    /// Reads them back. Keys that are not ours are ignored.
    pub fn decode(ids: &BTreeMap<String, String>) -> Result<Self, FactError> {
        let row = Row(ids);
        let role = match row.text(TAG_ROLE)? {
            "pod" => Role::Pod(row.pod()?),
            "node" => Role::Node(NodeFacts {
                pod_cidrs: row.list(POD_CIDRS)?,
                service_cidrs: row.list(SERVICE_CIDRS)?,
                join_cidrs: row.list(JOIN_CIDRS)?,
                nat_cidrs: row.list(NAT_CIDRS)?,
            }),
            _ => return Err(row.invalid(TAG_ROLE, "a port's role is pod or node")),
        };
        let facts = Self {
            chassis: ids
                .keys()
                .filter_map(|key| key.strip_prefix(MARKER_PREFIX))
                .map(str::to_owned)
                .collect(),
            host: row.host()?,
            role,
            subnet: row.non_empty(SUBNET)?.to_owned(),
            mac: row.mac()?,
            ips: row.list(IPS)?,
            gateways: row.list(GATEWAYS)?,
            routes: row.routes()?,
            mtu: row.mtu()?,
            default_route: match row.text(DEFAULT_ROUTE)? {
                "true" => true,
                "false" => false,
                _ => return Err(row.invalid(DEFAULT_ROUTE, "it is true or false")),
            },
        };
        if facts.ips.is_empty() {
            return Err(row.invalid(IPS, "a port has at least one address"));
        }
        if !one_a_family_v4_first(facts.ips.iter().map(IpNet::addr)) {
            return Err(row.invalid(
                IPS,
                "a port has one IPv4 and/or one IPv6 address, in that order",
            ));
        }
        if !one_a_family_v4_first(facts.gateways.iter().copied()) {
            return Err(row.invalid(
                GATEWAYS,
                "at most one IPv4 and one IPv6 gateway, in that order",
            ));
        }
        if !facts
            .gateways
            .iter()
            .all(|gateway| facts.ips.iter().any(|ip| ip.contains(gateway)))
        {
            return Err(row.invalid(
                GATEWAYS,
                "a gateway lies in the subnet of one of the port's addresses",
            ));
        }
        Ok(facts)
    }
}

fn one_a_family_v4_first(mut ips: impl Iterator<Item = IpAddr>) -> bool {
    match (ips.next(), ips.next(), ips.next()) {
        (_, None, _) => true,
        (Some(first), Some(second), None) => first.is_ipv4() && second.is_ipv6(),
        _ => false,
    }
}

/// Interface names as the kernel takes them (dev_valid_name), so that none can become a path.
fn valid_ifname(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= 15
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
}

struct Row<'a>(&'a BTreeMap<String, String>);

impl<'a> Row<'a> {
    fn text(&self, key: &'static str) -> Result<&'a str, FactError> {
        self.0
            .get(key)
            .map(String::as_str)
            .ok_or(FactError::Missing { key })
    }

    fn non_empty(&self, key: &'static str) -> Result<&'a str, FactError> {
        match self.text(key)? {
            "" => Err(self.invalid(key, "it may not be empty")),
            text => Ok(text),
        }
    }

    fn invalid(&self, key: &'static str, why: impl Into<String>) -> FactError {
        let value = self.0.get(key).cloned().unwrap_or_default();
        FactError::Invalid {
            key,
            value,
            why: why.into(),
        }
    }

    fn list<T: FromStr<Err: std::fmt::Display>>(
        &self,
        key: &'static str,
    ) -> Result<Vec<T>, FactError> {
        self.text(key)?
            .split_ascii_whitespace()
            .map(|item| {
                item.parse()
                    .map_err(|error| self.invalid(key, format!("{item:?}: {error}")))
            })
            .collect()
    }

    fn pod(&self) -> Result<PodPort, FactError> {
        let (namespace, name) = self
            .text(TAG_POD)?
            .split_once('/')
            .filter(|(namespace, name)| {
                !namespace.is_empty() && !name.is_empty() && !name.contains('/')
            })
            .ok_or_else(|| self.invalid(TAG_POD, "it has the form namespace/name"))?;
        let ifname = self.text(TAG_IFNAME)?;
        if !valid_ifname(ifname) {
            return Err(self.invalid(TAG_IFNAME, "it is no name of a network interface"));
        }
        Ok(PodPort {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: self.non_empty(TAG_UID)?.to_owned(),
            ifname: ifname.to_owned(),
            target: self.target()?,
        })
    }

    fn target(&self) -> Result<Option<MigrationTarget>, FactError> {
        if !self.0.contains_key(TAG_TARGET) && !self.0.contains_key(TAG_TARGET_UID) {
            return Ok(None);
        }
        Ok(Some(MigrationTarget {
            name: self.non_empty(TAG_TARGET)?.to_owned(),
            uid: self.non_empty(TAG_TARGET_UID)?.to_owned(),
        }))
    }

    fn host(&self) -> Result<Option<String>, FactError> {
        match self.0.get(TAG_HOST).map(String::as_str) {
            None => Ok(None),
            Some("") => Err(self.invalid(TAG_HOST, "it is the name of a node")),
            Some(host) => Ok(Some(host.to_owned())),
        }
    }

    fn mac(&self) -> Result<Mac, FactError> {
        let mac: Mac = self
            .text(MAC)?
            .parse()
            .map_err(|error: crate::MacError| self.invalid(MAC, error.to_string()))?;
        if mac.is_unicast() {
            Ok(mac)
        } else {
            Err(self.invalid(MAC, "it is no unicast address"))
        }
    }

    fn mtu(&self) -> Result<Option<u32>, FactError> {
        let Some(text) = self.0.get(MTU) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(mtu @ 68..=65_535) => Ok(Some(mtu)),
            _ => Err(self.invalid(MTU, "an MTU is a number from 68 to 65535")),
        }
    }

    fn routes(&self) -> Result<Vec<Route>, FactError> {
        self.text(ROUTES)?
            .split_ascii_whitespace()
            .map(|item| self.route(item))
            .collect()
    }

    fn route(&self, item: &str) -> Result<Route, FactError> {
        let invalid = || {
            self.invalid(
                ROUTES,
                format!("{item:?} is not of the form destination=next-hop"),
            )
        };
        let (dst, via) = item.split_once('=').ok_or_else(invalid)?;
        let dst: IpNet = dst.parse().map_err(|_| invalid())?;
        let via: IpAddr = via.parse().map_err(|_| invalid())?;
        if dst.addr().is_ipv4() == via.is_ipv4() {
            Ok(Route { dst, via })
        } else {
            Err(self.invalid(ROUTES, format!("{item:?} mixes IPv4 and IPv6")))
        }
    }
}
