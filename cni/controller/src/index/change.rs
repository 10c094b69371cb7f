//! What a change of an object makes dirty.

use super::{DpuEntry, Index, MigrationEntry, NadEntry, NodeEntry, ObjectKey, Place, PodEntry};
use super::{ServiceEntry, SliceEntry, SubnetEntry, VpcEntry};
use crate::rows::Unit;
use api::names::{DEFAULT_SUBNET, DEFAULT_VPC};
use std::collections::{BTreeSet, btree_map, hash_map};

/// Units to plan again.
#[derive(Debug, Default)]
pub struct Dirty {
    /// These.
    pub units: BTreeSet<Unit>,
    /// And those that could not have their rows: the reason may be gone.
    pub blocked: bool,
    /// And all that carry facts of this subnet: their rows repeat some of it.
    pub subnets: BTreeSet<String>,
    /// And what is said of Dpus and their hosts. No rows follow from that.
    pub pairs: bool,
}

impl Dirty {
    /// Whether there is nothing to plan.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && !self.blocked && self.subnets.is_empty()
    }

    /// Takes over what is dirty in the other.
    pub fn merge(&mut self, other: Self) {
        self.units.extend(other.units);
        self.subnets.extend(other.subnets);
        self.blocked |= other.blocked;
        self.pairs |= other.pairs;
    }
}

impl Index {
    pub(super) fn put_vpc(&mut self, name: String, entry: Option<VpcEntry>, dirty: &mut Dirty) {
        if !replace(self.vpcs.entry(name.clone()), entry) {
            return;
        }
        let subnets = self.subnets_of(&name);
        let subnets: Vec<Unit> = subnets.map(|(s, _)| Unit::Subnet(s.to_owned())).collect();
        dirty.units.extend(subnets);
        dirty.units.insert(Unit::Vpc(name));
        dirty.blocked = true;
    }

    pub(super) fn put_subnet(
        &mut self,
        name: String,
        entry: Option<SubnetEntry>,
        dirty: &mut Dirty,
    ) {
        let vpc_of = |entry: Option<&SubnetEntry>| entry.map(|s| s.spec.vpc.clone());
        let vpcs = [vpc_of(self.subnets.get(&name)), vpc_of(entry.as_ref())];
        if !replace(self.subnets.entry(name.clone()), entry) {
            return;
        }
        // Nodes carry the CIDRs of all subnets of the default VPC, in their facts and policies.
        if vpcs.iter().flatten().any(|vpc| vpc == DEFAULT_VPC) {
            dirty
                .units
                .extend(self.nodes.keys().cloned().map(Unit::Node));
        }
        dirty
            .units
            .extend(vpcs.into_iter().flatten().map(Unit::Vpc));
        dirty.units.insert(Unit::Subnet(name.clone()));
        dirty.subnets.insert(name);
        dirty.blocked = true;
    }

    pub(super) fn put_node(&mut self, name: String, entry: Option<NodeEntry>, dirty: &mut Dirty) {
        let before = self.place(&name);
        if replace(self.nodes.entry(name.clone()), entry) {
            dirty.units.insert(Unit::Node(name.clone()));
            dirty.pairs = true;
            self.moved([(name, before)], dirty);
        }
    }

    pub(super) fn put_dpu(&mut self, name: String, entry: Option<DpuEntry>, dirty: &mut Dirty) {
        let claim = |entry: Option<&DpuEntry>| entry.map(|dpu| (dpu.created, dpu.spec.clone()));
        let claims = [claim(self.dpus.get(&name)), claim(entry.as_ref())];
        if !replace(self.dpus.entry(name), entry) {
            return;
        }
        dirty.pairs = true;
        if claims[0] == claims[1] {
            return;
        }
        let pairs = self.count_pairs();
        let hosts: BTreeSet<&String> = self.pairs.keys().chain(pairs.keys()).collect();
        let changed = hosts
            .into_iter()
            .filter(|host| self.pairs.get(*host) != pairs.get(*host));
        let before: Vec<(String, Option<Place>)> = changed
            .map(|host| (host.clone(), self.place(host)))
            .collect();
        self.pairs = pairs;
        self.moved(before, dirty);
    }

    /// Those of the nodes whose ports were elsewhere `before`, and their pods, are to be planned.
    fn moved(&self, before: impl IntoIterator<Item = (String, Option<Place>)>, dirty: &mut Dirty) {
        let moved: BTreeSet<String> = before
            .into_iter()
            .filter(|(node, before)| self.place(node) != *before)
            .map(|(node, _)| node)
            .collect();
        if moved.is_empty() {
            return;
        }
        let on_them = self
            .pods
            .iter()
            .filter(|(_, pod)| moved.contains(&*pod.node));
        for (key, pod) in on_them {
            let keys = self.beside(key, Some(pod)).into_iter().chain([key.clone()]);
            dirty
                .units
                .extend(keys.map(|(ns, name)| Unit::pod(ns, name)));
        }
        dirty.units.extend(moved.into_iter().map(Unit::Node));
    }

    pub(super) fn put_nad(&mut self, key: ObjectKey, entry: Option<NadEntry>, dirty: &mut Dirty) {
        if replace(self.nads.entry(key), entry) {
            let pods = self.multihomed.iter();
            dirty
                .units
                .extend(pods.map(|(ns, name)| Unit::pod(ns, name)));
        }
    }

    pub(super) fn put_service(
        &mut self,
        key: ObjectKey,
        entry: Option<ServiceEntry>,
        dirty: &mut Dirty,
    ) {
        if replace_hashed(self.services.entry(key.clone()), entry) {
            dirty.units.insert(Unit::service(key.0, key.1));
        }
    }

    /// The slice `key`, which belongs to the Service `entry.0` of its namespace.
    pub(super) fn put_slice(
        &mut self,
        key: ObjectKey,
        entry: Option<(String, SliceEntry)>,
        dirty: &mut Dirty,
    ) {
        let (ns, slice) = key;
        let service = entry
            .as_ref()
            .map(|(service, _)| (ns.clone(), service.clone()));
        let former = self.slice_owner.get(&(ns.clone(), slice.clone())).cloned();
        if let Some(former) = former.filter(|former| Some(former) != service.as_ref()) {
            self.slice_owner.remove(&(ns.clone(), slice.clone()));
            if let hash_map::Entry::Occupied(mut slices) = self.slices.entry(former.clone()) {
                slices.get_mut().remove(&slice);
                if slices.get().is_empty() {
                    slices.remove();
                }
            }
            dirty.units.insert(Unit::service(former.0, former.1));
        }
        if let (Some(service), Some((_, entry))) = (service, entry) {
            let slices = self.slices.entry(service.clone()).or_default();
            if slices.get(&slice) != Some(&entry) {
                slices.insert(slice.clone(), entry);
                dirty.units.insert(Unit::service(&service.0, &service.1));
            }
            self.slice_owner.insert((ns, slice), service);
        }
    }

    pub(super) fn put_pod(&mut self, key: ObjectKey, entry: Option<PodEntry>, dirty: &mut Dirty) {
        let multihomed = entry.as_ref().is_some_and(|pod| pod.networks().is_some());
        if multihomed {
            self.multihomed.insert(key.clone());
        } else {
            self.multihomed.remove(&key);
        }
        self.put_into_machine(&key, entry.as_ref());
        let mut beside = self.beside(&key, self.pods.get(&key));
        let changed = match (self.pods.get_mut(&key), entry) {
            (None, None) => false,
            (Some(old), Some(new)) => {
                let changed = !old.same_wants(&new);
                *old = new;
                changed
            }
            (None, Some(new)) => {
                self.pods.insert(key.clone(), new);
                true
            }
            (Some(_), None) => {
                self.pods.remove(&key);
                true
            }
        };
        if changed {
            // Pods of one machine share its ports.
            beside.extend(self.beside(&key, self.pods.get(&key)));
            let units = beside.into_iter().chain([key]);
            dirty
                .units
                .extend(units.map(|(ns, name)| Unit::pod(ns, name)));
        }
    }

    /// Keeps the lists of machines' pods, before the pod itself is put.
    fn put_into_machine(&mut self, key: &ObjectKey, entry: Option<&PodEntry>) {
        let machine =
            |pod: Option<&PodEntry>| Some((key.0.clone(), pod?.vm.as_deref()?.to_owned()));
        let (before, after) = (machine(self.pods.get(key)), machine(entry));
        if before == after {
            return;
        }
        if let Some(before) = before
            && let hash_map::Entry::Occupied(mut pods) = self.machines.entry(before)
        {
            pods.get_mut().remove(&key.1);
            if pods.get().is_empty() {
                pods.remove();
            }
        }
        if let Some(after) = after {
            let pods = self.machines.entry(after).or_default();
            pods.insert(key.1.clone());
        }
    }

    pub(super) fn put_migration(
        &mut self,
        key: ObjectKey,
        entry: Option<MigrationEntry>,
        dirty: &mut Dirty,
    ) {
        let ns = key.0.clone();
        let vms = [self.migrations.get(&key), entry.as_ref()];
        let vms: BTreeSet<Box<str>> = vms
            .into_iter()
            .flatten()
            .map(|one| one.vm.clone())
            .collect();
        if !replace(self.migrations.entry(key), entry) {
            return;
        }
        for vm in vms {
            let pods = self.pods_of(&ns, &vm);
            dirty
                .units
                .extend(pods.map(|(name, _)| Unit::pod(&*ns, name)));
        }
    }

    /// The subnet of a pod's eth0: the first by name that is primary for the namespace, else the
    /// cluster's default subnet.
    pub fn primary_subnet(&self, namespace: &str) -> &str {
        self.subnets
            .iter()
            .find(|(_, subnet)| !subnet.deleting && subnet.spec.is_primary_of(namespace))
            .map_or(DEFAULT_SUBNET, |(name, _)| name)
    }
}

/// Puts or removes an entry; whether that changed anything.
fn replace<V: PartialEq>(slot: btree_map::Entry<'_, impl Ord, V>, entry: Option<V>) -> bool {
    match (slot, entry) {
        (btree_map::Entry::Vacant(_), None) => false,
        (btree_map::Entry::Vacant(slot), Some(entry)) => {
            slot.insert(entry);
            true
        }
        (btree_map::Entry::Occupied(slot), None) => {
            slot.remove();
            true
        }
        (btree_map::Entry::Occupied(mut slot), Some(entry)) => {
            let changed = *slot.get() != entry;
            slot.insert(entry);
            changed
        }
    }
}

fn replace_hashed<K, V: PartialEq>(slot: hash_map::Entry<'_, K, V>, entry: Option<V>) -> bool {
    match (slot, entry) {
        (hash_map::Entry::Vacant(_), None) => false,
        (hash_map::Entry::Vacant(slot), Some(entry)) => {
            slot.insert(entry);
            true
        }
        (hash_map::Entry::Occupied(slot), None) => {
            slot.remove();
            true
        }
        (hash_map::Entry::Occupied(mut slot), Some(entry)) => {
            let changed = *slot.get() != entry;
            slot.insert(entry);
            changed
        }
    }
}
