//! Every port that has an address, and the pools of all subnets.

use super::{Assigned, Pool, Wish};
use crate::index::{Index, egress_hop};
use crate::rows::{Problem, Unit};
use api::names::JOIN_SUBNET;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A port with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The interface's name.
    pub ifname: Arc<str>,
    /// Name of the logical switch port.
    pub lsp: Arc<str>,
    /// UID of the pod; empty for a node.
    pub uid: Arc<str>,
    /// Name of the subnet.
    pub subnet: Arc<str>,
    /// What it has.
    pub assigned: Assigned,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Ports {
    pools: BTreeMap<String, Pool>,
    units: HashMap<Unit, Vec<Port>>,
    /// Subnets that give nothing out, and why.
    frozen: BTreeMap<String, String>,
    /// Subnets whose usage has changed since somebody asked.
    touched: BTreeSet<String>,
    /// Names of interfaces and subnets, which all ports share.
    names: HashSet<Arc<str>>,
}

impl Ports {
    /// Makes pools for the subnets of the index that have none, and takes over changed exclusions.
    /// A pool whose subnet is gone stays as long as somebody has an address of it.
    pub fn sync(&mut self, index: &Index) {
        for (name, subnet) in &index.subnets {
            let Ok(layout) = &subnet.layout else {
                continue;
            };
            let also: Vec<IpAddr> = match name.as_str() {
                JOIN_SUBNET => layout.cidrs.iter().map(|cidr| egress_hop(*cidr)).collect(),
                _ => Vec::new(),
            };
            if let Some(pool) = self.pools.get_mut(name) {
                pool.update(layout, &also);
            } else {
                let mut pool = Pool::new(layout, &also);
                let ports = self.units.values().flatten();
                for port in ports.filter(|port| *port.subnet == **name) {
                    pool.mark(&port.assigned);
                }
                self.pools.insert(name.clone(), pool);
            }
            self.touched.insert(name.clone());
        }
        let in_use: BTreeSet<&str> = self.units.values().flatten().map(|p| &*p.subnet).collect();
        self.pools
            .retain(|name, _| index.subnets.contains_key(name) || in_use.contains(name.as_str()));
    }

    /// Takes over a port from the record. The addresses that another port has too.
    pub fn load(&mut self, unit: Unit, port: Port) -> Vec<IpAddr> {
        let pool = self.pools.get_mut(&*port.subnet);
        let twice = pool
            .map(|pool| pool.mark(&port.assigned))
            .unwrap_or_default();
        self.keep(unit, port);
        twice
    }

    fn keep(&mut self, unit: Unit, mut port: Port) {
        for name in [&mut port.ifname, &mut port.subnet] {
            match self.names.get(name) {
                Some(shared) => *name = shared.clone(),
                None => drop(self.names.insert(name.clone())),
            }
        }
        // Most units have one port: room for four of them would be felt.
        let ports = self.units.entry(unit);
        ports.or_insert_with(|| Vec::with_capacity(1)).push(port);
    }

    /// The ports of a unit.
    pub fn of(&self, unit: &Unit) -> &[Port] {
        self.units.get(unit).map_or(&[], Vec::as_slice)
    }

    /// Every unit that has ports.
    pub fn units(&self) -> impl Iterator<Item = (&Unit, &[Port])> {
        self.units
            .iter()
            .map(|(unit, ports)| (unit, ports.as_slice()))
    }

    /// The unit's port in this subnet with this interface name and UID: the one it has, else a new
    /// one (`wish` counts only then).
    pub fn ensure(&mut self, unit: &Unit, port: Port, wish: &Wish) -> Result<Port, Problem> {
        let same = |p: &&Port| p.ifname == port.ifname && p.uid == port.uid;
        if let Some(present) = self.of(unit).iter().find(same) {
            return Ok(present.clone());
        }
        if let Some(why) = self.frozen.get(&*port.subnet) {
            return Err(Problem::new("AllocationRefused", why.clone()));
        }
        let subnet = &port.subnet;
        let pool = self.pools.get_mut(&**subnet).ok_or_else(|| {
            Problem::new(
                "NoSuchSubnet",
                format!(
                    "Subnet {subnet} does not exist or its spec is not valid: create it, or name another one"
                ),
            )
        })?;
        let assigned = pool.assign(wish).map_err(|error| {
            let full = matches!(error, super::PoolError::Full(_));
            let remedy = if full {
                "delete pods, take addresses off spec.excludes, or use a larger Subnet"
            } else {
                "ask for another one, or for none to get one that is free"
            };
            let reason = if full {
                "NoAddressLeft"
            } else {
                "AddressRefused"
            };
            Problem::new(
                reason,
                format!(
                    "interface {}: Subnet {subnet}: {error}: {remedy}",
                    port.ifname
                ),
            )
        })?;
        self.touched.insert(subnet.to_string());
        let port = Port { assigned, ..port };
        self.keep(unit.clone(), port.clone());
        Ok(port)
    }

    /// Hands a port over to another unit, with its addresses: the next pod of the same machine has it from now on.
    pub fn hand_over(&mut self, from: &Unit, to: &Unit, lsp: &str, uid: &str) {
        let Some(ports) = self.units.get_mut(from) else {
            return;
        };
        let Some(position) = ports.iter().position(|port| *port.lsp == *lsp) else {
            return;
        };
        let port = ports.swap_remove(position);
        if ports.is_empty() {
            self.units.remove(from);
        }
        let uid = uid.into();
        self.keep(to.clone(), Port { uid, ..port });
    }

    /// Gives back the port's addresses. To be called when its row is gone.
    pub fn release(&mut self, unit: &Unit, port: &Port) {
        let Some(ports) = self.units.get_mut(unit) else {
            return;
        };
        let Some(position) = ports.iter().position(|p| p == port) else {
            return;
        };
        ports.swap_remove(position);
        if ports.is_empty() {
            self.units.remove(unit);
        }
        if let Some(pool) = self.pools.get_mut(&*port.subnet) {
            pool.free(&port.assigned);
        }
        self.touched.insert(port.subnet.to_string());
    }

    /// The pool of a subnet.
    pub fn pool(&self, subnet: &str) -> Option<&Pool> {
        self.pools.get(subnet)
    }

    /// The pool of a subnet, to restore its cursors.
    pub fn pool_mut(&mut self, subnet: &str) -> Option<&mut Pool> {
        self.pools.get_mut(subnet)
    }

    /// All pools, by subnet.
    pub fn pools(&self) -> impl Iterator<Item = (&str, &Pool)> {
        self.pools.iter().map(|(name, pool)| (name.as_str(), pool))
    }

    /// Refuses new ports in exactly these subnets, with these sentences.
    pub fn refreeze(&mut self, frozen: BTreeMap<String, String>) {
        let before = std::mem::replace(&mut self.frozen, frozen);
        self.touched.extend(before.into_keys());
        self.touched.extend(self.frozen.keys().cloned());
    }

    /// Why a subnet gives nothing out.
    pub fn frozen(&self, subnet: &str) -> Option<&str> {
        self.frozen.get(subnet).map(String::as_str)
    }

    /// All subnets that give nothing out, with the reasons.
    pub fn all_frozen(&self) -> &BTreeMap<String, String> {
        &self.frozen
    }

    /// Subnets whose usage has changed since the last call.
    pub fn take_touched(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.touched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{Settings, SubnetEntry};
    use api::SubnetSpec;

    fn index(cidr: &str) -> Index {
        let mut index = Index::new(Settings::default());
        let spec = SubnetSpec::new([cidr.parse().unwrap()]);
        let entry = SubnetEntry {
            uid: "u".into(),
            generation: 1,
            layout: spec.layout(),
            spec,
            deleting: false,
            finalizers: vec![],
        };
        index.subnets.insert("s".into(), entry);
        index
    }

    fn port(uid: &str) -> Port {
        Port {
            ifname: "eth0".into(),
            lsp: "ns/p/s".into(),
            uid: uid.into(),
            subnet: "s".into(),
            assigned: Assigned {
                mac: api::Mac([0; 6]),
                ips: vec![],
            },
        }
    }

    #[test]
    fn a_unit_keeps_its_port_and_a_new_uid_gets_another_address() {
        let mut ports = Ports::default();
        ports.sync(&index("10.0.0.0/24"));
        let unit = Unit::pod("ns", "p");
        let first = ports.ensure(&unit, port("u1"), &Wish::default()).unwrap();
        assert_eq!(
            ports.ensure(&unit, port("u1"), &Wish::default()),
            Ok(first.clone())
        );
        let second = ports.ensure(&unit, port("u2"), &Wish::default()).unwrap();
        assert_ne!(first.assigned, second.assigned);
        ports.release(&unit, &first);
        assert_eq!(ports.of(&unit), [second]);
        assert_eq!(ports.pool("s").unwrap().usage(false).unwrap().0, 1);
    }

    #[test]
    fn a_full_pool_names_subnet_and_remedy() {
        let mut ports = Ports::default();
        ports.sync(&index("10.0.0.0/30"));
        let ensure = |ports: &mut Ports, name: &str| {
            ports.ensure(&Unit::pod("ns", name), port("u"), &Wish::default())
        };
        ensure(&mut ports, "a").unwrap();
        let problem = ensure(&mut ports, "b").unwrap_err();
        assert_eq!(problem.reason, "NoAddressLeft");
        assert!(
            problem.sentence.contains("Subnet s") && problem.sentence.contains("larger Subnet")
        );
    }

    #[test]
    fn ports_are_marked_also_when_their_subnet_appears_later() {
        let mut ports = Ports::default();
        let mut loaded = port("u");
        loaded.assigned.ips = vec!["10.0.0.2".parse().unwrap()];
        ports.load(Unit::pod("ns", "a"), loaded);
        ports.sync(&index("10.0.0.0/24"));
        let got = ports
            .ensure(&Unit::pod("ns", "b"), port("u"), &Wish::default())
            .unwrap();
        assert_eq!(got.assigned.ips[0].to_string(), "10.0.0.3");
    }
}
